"""The results of a sweep as Ray Tune's users know them."""

from __future__ import annotations

from pathlib import Path

from ray import tune

from melanoma_dist.errors import ConfigError
from melanoma_dist.sweep.experiment import EXPERIMENT, STATES


def open_results(folder: Path) -> tune.ResultGrid:
    """The units of a sweep that trained on Ray. Raises ConfigError for another folder."""
    experiment = folder / EXPERIMENT
    if not any(experiment.glob(STATES)):
        raise ConfigError(
            f"{folder}: no experiment of Ray Tune is here. Name the folder of a sweep that trained on Ray."
        )
    return tune.ResultGrid(tune.ExperimentAnalysis(str(experiment), default_metric="best_score", default_mode="max"))

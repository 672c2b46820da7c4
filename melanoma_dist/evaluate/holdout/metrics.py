"""The figures of a look: of the folds together, of each alone, at what the run decided before it saw these images.

Shapes: n images, k folds, L labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from melanoma_dist.artifacts.predictions import arrays, predictions_table
from melanoma_dist.data.folds import HEADLINE
from melanoma_dist.data.labels import TRUE
from melanoma_dist.evaluate.assessment import assess
from melanoma_dist.evaluate.decision_rules import decision, judge, quality
from melanoma_dist.inference.ensemble import EnsemblePredictions
from melanoma_dist.inference.images import Images, absent_labels
from melanoma_dist.inference.trained_run import TrainedRun
from melanoma_dist.metrics.classification import FIGURES, Settings, figures
from melanoma_dist.metrics.subgroups import subgroups

ENSEMBLE = -1
"""The fold of the rows that all folds predict together."""


@dataclass(frozen=True)
class Tables:
    """Predictions of the same images in the same order."""

    raw: list[pd.DataFrame]
    """Of each fold, as its model gives them."""
    calibrated: list[pd.DataFrame]
    """The same, calibrated as the run decided."""
    raw_mean: pd.DataFrame
    """The mean of ``raw``."""
    ensemble: pd.DataFrame
    """The mean of ``calibrated``: what is judged."""


def tables(images: Images, predictions: EnsemblePredictions) -> Tables:
    """The tables of an ensemble's predictions for ``images``."""
    labels, rows = predictions.labels, images.table
    truth = images.truth(labels)

    def table(fold: int, probability: npt.NDArray[np.float32]) -> pd.DataFrame:
        return predictions_table(rows, fold, labels, probability, truth)

    return Tables(
        [table(fold, values) for fold, values in enumerate(predictions.raw)],
        [table(fold, values) for fold, values in enumerate(predictions.calibrated)],
        table(ENSEMBLE, predictions.raw_mean),
        table(ENSEMBLE, predictions.probability),
    )


def judged(subject: TrainedRun, images: Images, made: Tables, prevalence: float | None) -> dict[str, Any]:
    """All that the tables say, as plain values: calls at each label's frozen point of Youden.

    ``prevalence`` is the headline label's, for PPV and NPV; None tells neither.
    """
    labels = subject.labels
    thresholds = subject.decision_rules.thresholds(labels, subject.config.threshold)
    settings = Settings(thresholds, _prevalences(labels, prevalence))
    about = images.table.set_index("image_id")
    absent = absent_labels(images, labels)
    alone = [figures(*arrays(table, labels), labels, settings) for table in made.calibrated]
    return {
        "ensemble": _without_assessed(assess(made.ensemble, labels, settings), absent),
        "folds": {str(fold): _without(found, absent) for fold, found in enumerate(alone)},
        "prevalence": prevalence,
        "operating_points": {label: _points(subject, made.ensemble, label) for label in labels},
        "calibration": {
            label: {"before": _quality(made.raw_mean, label), "after": _quality(made.ensemble, label)}
            for label in labels
        },
        "decision_curve": {label: decision(*_column(made.ensemble, label)) for label in labels},
        "subgroups": subgroups(made.ensemble, about, HEADLINE, thresholds[labels.index(HEADLINE)]),
    }


def _without_assessed(found: dict[str, Any], absent: dict[str, str]) -> dict[str, Any]:
    """An assessment in which labels that cannot be judged have no figures: a share of no positives tells nothing."""
    nothing = {"estimate": None, "low": None, "high": None, "undefined": found["bootstrap"]["resamples"]}
    for view in ("by_image", "by_lesion"):
        _without(found[view], absent)
        for label, why in absent.items():
            found["intervals"][view][label] = dict.fromkeys(FIGURES, nothing)
            found["delong"][view][label] = {"not_defined": why}
    return found


def _without(found: dict[str, Any], absent: dict[str, str]) -> dict[str, Any]:
    for label in absent:
        found["labels"][label] |= dict.fromkeys(FIGURES)
    return found


def _prevalences(labels: tuple[str, ...], prevalence: float | None) -> tuple[float | None, ...] | None:
    return None if prevalence is None else tuple(prevalence if label == HEADLINE else None for label in labels)


def _points(subject: TrainedRun, table: pd.DataFrame, label: str) -> Any:
    if label in subject.decision_rules.why_not:
        return {"not_chosen": subject.decision_rules.why_not[label]}
    return judge(subject.decision_rules.points[label], *_column(table, label), table["group"].to_numpy())


def _quality(table: pd.DataFrame, label: str) -> dict[str, Any]:
    return quality(*_column(table, label))


def _column(table: pd.DataFrame, label: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    return table[label + TRUE].to_numpy(), table[label].to_numpy()

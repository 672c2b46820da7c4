"""The reader of a trained run for predictions on unseen images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from fuzzing.files import RUN
from fuzzing.parsers import Parser
from fuzzing.parsers.runs import FINAL_FILES, inside, rehash
from melanoma_dist.data.demo import open_dataset
from melanoma_dist.inference.ensemble import Ensemble
from melanoma_dist.inference.trained_run import open_trained_run
from melanoma_dist.world import World


def _trained_run(place: Path) -> None:
    """Fix the hashes of its files, as an attacker can."""
    run = place / RUN
    rehash(run, "summary.json", FINAL_FILES)
    trained = open_trained_run(run)
    Ensemble.of(trained, World())
    trained.decision_rules.thresholds(trained.labels, 0.5)
    trained.decision_rules.calibrate(_predictions(trained.labels), trained.labels)
    trained.trained(open_dataset(str(place / "data")))


def _predictions(labels: tuple[str, ...]) -> pd.DataFrame:
    """Create an intact table."""
    return pd.DataFrame(
        {"image_id": list("abcde"), **{label: np.linspace(0, 1, 5, dtype=np.float32) for label in labels}}
    )


PARSERS: dict[str, Parser] = {
    "trained-run": Parser(
        _trained_run,
        ("runs", "data"),
        inside(
            RUN, "config.yaml", "record.json", "summary.json", "decision_rules.json", "folds.parquet",
            "model/fold-0.safetensors",
        ),
    )
}  # fmt: skip

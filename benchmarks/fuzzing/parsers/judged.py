"""The reader of a run whose models are to judge unseen images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from fuzzing.files import RUN
from fuzzing.parsers import Parser
from fuzzing.parsers.runs import CONCLUDED, inside, rehash
from melanoma_dist.data.demo import open_dataset
from melanoma_dist.inference.ensemble import Ensemble
from melanoma_dist.inference.trained_run import open_trained_run
from melanoma_dist.world import World


def _judged_run(place: Path) -> None:
    """With the hashes of its files right."""
    run = place / RUN
    rehash(run, "summary.json", CONCLUDED)
    subject = open_trained_run(run)
    Ensemble.of(subject, World())
    subject.decision_rules.thresholds(subject.labels, 0.5)
    subject.decision_rules.calibrate(_predictions(subject.labels), subject.labels)
    subject.trained(open_dataset(str(place / "data")))


def _predictions(labels: tuple[str, ...]) -> pd.DataFrame:
    """A table that is not damaged here."""
    return pd.DataFrame(
        {"image_id": list("abcde"), **{label: np.linspace(0, 1, 5, dtype=np.float32) for label in labels}}
    )


PARSERS: dict[str, Parser] = {
    "judged-run": Parser(
        _judged_run,
        ("runs", "data"),
        inside(
            RUN, "config.yaml", "record.json", "summary.json", "decision_rules.json", "folds.parquet",
            "model/fold-0.safetensors",
        ),
    )
}  # fmt: skip

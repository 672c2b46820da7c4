"""The readers of trained models for predictions on unseen images: a run, and a folder exported for Hugging Face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from fuzzing.files import HUB, RUN
from fuzzing.parsers import Parser
from fuzzing.parsers.runs import FINAL_FILES, inside, rehash
from melanoma_dist.app.export.hub import HEAD, RUN_CONFIG, load_hub
from melanoma_dist.config.places import DECISION_RULES
from melanoma_dist.data.demo import open_dataset
from melanoma_dist.inference.ensemble import Ensemble
from melanoma_dist.inference.trained_run import open_trained_run
from melanoma_dist.models.hub import CONFIG, WEIGHTS
from melanoma_dist.world import World

_FOLDS = [f"fold-{fold}/{name}" for fold in (0, 1) for name in (CONFIG, WEIGHTS, HEAD)]
HUB_FILES = (RUN_CONFIG, DECISION_RULES, *_FOLDS)


def _trained_run(place: Path) -> None:
    """Fix the hashes of its files, as an attacker can."""
    run = place / RUN
    rehash(run, "summary.json", FINAL_FILES)
    (run / "fold-0" / "features.sha256").unlink(missing_ok=True)
    trained = open_trained_run(run)
    _ = Ensemble.of(trained, World()).run_features
    trained.decision_rules.thresholds(trained.labels, 0.5)
    trained.decision_rules.calibrate(_predictions(trained.labels), trained.labels)
    trained.trained(open_dataset(str(place / "data")))


def _hub_folder(place: Path) -> None:
    """Fix the hashes of its files, as an attacker can."""
    rehash(place / HUB, CONFIG, HUB_FILES)
    ensemble = load_hub(place / HUB, threads=1)
    _ = ensemble.model
    ensemble.rules.thresholds(ensemble.labels, 0.5)
    ensemble.rules.calibrate(_predictions(ensemble.labels), ensemble.labels)


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
            "model/fold-0.safetensors", "fold-0/features.safetensors",
        ),
    ),
    "hub-folder": Parser(
        _hub_folder, (HUB,), inside(HUB, CONFIG, *(name for name in HUB_FILES if not name.startswith("fold-1")))
    ),
}  # fmt: skip

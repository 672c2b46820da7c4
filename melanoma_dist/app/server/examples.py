"""Images of the run's own data set to try the server with: a melanoma, a nevus, and one that is hard to call.

A fold was trained on each of them, which the answers say among their doubts.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from melanoma_dist.app.predictor import Predictor
from melanoma_dist.data.folds import HEADLINE
from melanoma_dist.data.labels import TRUE
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.inference.trained_run import TrainedRun

_CALIBRATED = f"{HEADLINE}_calibrated"
_TRUTH = f"{HEADLINE}{TRUE}"
_OTHER = f"NV{TRUE}"


@dataclass(frozen=True)
class Example:
    """An image to try."""

    name: str
    kind: str
    """``positive``, ``negative`` or ``doubtful``."""
    jpeg: bytes


def headline_threshold(predictor: Predictor) -> float:
    """The calibrated probability from which the headline label is called."""
    return predictor.limits.thresholds[predictor.run.labels.index(HEADLINE)]


def choose_examples(run: TrainedRun, dataset: Dataset, threshold: float) -> list[Example]:
    """Choose images by their out-of-fold predictions: typical ones and the one closest to the threshold.

    ``threshold``: calibrated probability from which the headline label is called.
    """
    table = run.predictions()
    probability = table[_CALIBRATED]
    positive, negative = table[_TRUTH] == 1, table[_TRUTH] == 0
    if _OTHER in table:
        negative &= table[_OTHER] == 1
    called = probability >= threshold
    chosen = {
        "positive": _typical(table[positive & called]),
        "negative": _typical(table[negative & ~called]),
    }
    rest = table[~table["image_id"].isin([name for name in chosen.values() if name])]
    chosen["doubtful"] = _nearest(rest, threshold)
    reader = ShardReader(dataset)
    rows = {name: row for row, name in enumerate(dataset.manifest["image_id"])}
    return [Example(name, kind, reader.jpeg(rows[name]).tobytes()) for kind, name in chosen.items() if name]


def _typical(table: pd.DataFrame) -> str:
    return _nearest(table, float(table[_CALIBRATED].median())) if len(table) else ""


def _nearest(table: pd.DataFrame, value: float) -> str:
    distances = (table[_CALIBRATED] - value).abs().to_numpy()
    return str(table["image_id"].iloc[int(distances.argmin())]) if len(table) else ""

"""Images of the run's own data set to try the server with: one with the headline label, one without (a nevus if there
are labelled ones), and one that is hard to call.

A fold was trained on each of them, which the answers say among their doubts.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from melanoma_dist.app.predictor import Predictor
from melanoma_dist.data.labels import TRUE
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.inference.trained_run import TrainedRun

_OTHER = "NV"  # the usual lesion beside a melanoma or carcinoma


@dataclass(frozen=True)
class Example:
    """An image to try."""

    name: str
    kind: str
    """``positive``, ``negative`` or ``doubtful``."""
    jpeg: bytes


def headline_threshold(predictor: Predictor) -> float:
    """The calibrated probability from which the headline label is called."""
    return predictor.limits.thresholds[predictor.run.labels.headline_column]


def choose_examples(run: TrainedRun, dataset: Dataset, threshold: float) -> list[Example]:
    """Choose images by their out-of-fold predictions: typical ones and the one closest to the threshold.

    ``threshold``: calibrated probability from which the headline label is called.
    """
    headline = run.labels.headline
    table = run.predictions().assign(probability=lambda rows: rows[f"{headline}_calibrated"])
    positive, negative = table[headline + TRUE] == 1, table[headline + TRUE] == 0
    if _OTHER in run.labels and headline != _OTHER:
        negative &= table[_OTHER + TRUE] == 1
    called = table["probability"] >= threshold
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
    return _nearest(table, float(table["probability"].median())) if len(table) else ""


def _nearest(table: pd.DataFrame, value: float) -> str:
    distances = (table["probability"] - value).abs().to_numpy()
    return str(table["image_id"].iloc[int(distances.argmin())]) if len(table) else ""

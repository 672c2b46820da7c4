"""A table of predictions assessed: every figure per image and per lesion, with intervals that respect lesions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from melanoma_dist.artifacts.predictions import arrays
from melanoma_dist.errors import DataError
from melanoma_dist.metrics.bootstrap import RESAMPLES, bootstrap
from melanoma_dist.metrics.classification import Settings, figures
from melanoma_dist.metrics.delong import delong
from melanoma_dist.metrics.lesions import by_lesion

LEVEL = 0.95


def assess(
    table: pd.DataFrame, labels: tuple[str, ...], settings: Settings, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """Everything that can be said of a table of predictions, as plain values.

    ``by_image`` and ``by_lesion``: ``figures`` of the rows, and of the lesions that ``by_lesion`` makes of them.
    ``intervals``: of each by a bootstrap over groups. ``delong``: AUCs with the interval of clustered DeLong variance.
    Raises DataError for a table without rows and TrainingError for what is no probability.
    """
    lesions, contradictory = by_lesion(table, labels)
    views = {"by_image": table, "by_lesion": lesions}
    drawn = {
        name: bootstrap(*arrays(rows, labels), rows["group"].to_numpy(), labels, settings, resamples, seed)
        for name, rows in views.items()
    }
    return {
        "images": len(table),
        "lesions": len(lesions),
        "contradictory": contradictory,
        **{name: figures(*arrays(rows, labels), labels, settings) for name, rows in views.items()},
        "intervals": {name: found.intervals(LEVEL) for name, found in drawn.items()},
        "delong": {name: _delong(rows, labels) for name, rows in views.items()},
        "bootstrap": {"resamples": resamples, "seed": seed, "level": LEVEL},
        "settings": {"thresholds": dict(zip(labels, settings.threshold_of(labels), strict=True))},
    }


def _delong(table: pd.DataFrame, labels: tuple[str, ...]) -> dict[str, Any]:
    truth, probability = arrays(table, labels)
    group = table["group"].to_numpy()
    found: dict[str, Any] = {}
    for column, label in enumerate(labels):
        try:
            aucs = delong(truth[:, column], probability[:, column], group)
        except DataError as error:
            found[label] = {"not_defined": str(error)}
            continue
        low, high = aucs.interval(level=LEVEL)
        deviation = float(np.sqrt(aucs.covariance[0, 0]))
        found[label] = {"auc": float(aucs.auc[0]), "low": low, "high": high, "standard_error": deviation}
    return found

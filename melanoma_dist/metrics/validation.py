"""The metrics of a validation while a fold is trained: few enough to be recorded after every epoch."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from melanoma_dist.metrics.classification import Floats, Settings, check_probabilities, label_metrics, mean_of_defined

VALIDATION_METRICS = ("auc", "average_precision", "precision", "sensitivity", "specificity")
_COUNTS = ("positives", "negatives", "unknown", "called_positive")


class ValidationMetrics(TypedDict):
    """Metrics by label, each None where the images do not define it, and their macro means."""

    images: int
    labels: dict[str, dict[str, float | None]]
    macro: dict[str, float | None]


def validation_metrics(
    truth: Floats, probability: Floats, labels: tuple[str, ...], threshold: float
) -> ValidationMetrics:
    """Compute ``VALIDATION_METRICS`` and counts per label, for truth and probability [n, L].

    An image is called positive from probability ``threshold`` on. A macro mean is over the labels that define the
    metric; ``<metric>_labels`` is their number. Raises TrainingError for a probability that is not 0 to 1.
    """
    check_probabilities(probability)
    called, settings = probability >= np.asarray(threshold, dtype=probability.dtype), Settings((threshold,))
    each: dict[str, dict[str, float | None]] = {}
    for column, label in enumerate(labels):
        entry = vars(label_metrics(truth[:, column], probability[:, column], called[:, column], None, settings))
        each[label] = {name: entry[name] for name in (*VALIDATION_METRICS, *_COUNTS)}
    macro: dict[str, float | None] = {}
    for name in VALIDATION_METRICS:
        macro[name], macro[f"{name}_labels"] = mean_of_defined([entry[name] for entry in each.values()])
    return {"images": len(truth), "labels": each, "macro": macro}

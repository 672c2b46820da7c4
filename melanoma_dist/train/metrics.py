"""The figures of a set of predictions. scikit-learn computes them; here is only what to do where a label is unknown.

Shapes: n images, L labels. Truth is 1, 0 or NaN (unknown); probabilities are 0 to 1.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import average_precision_score, precision_score, recall_score, roc_auc_score

from melanoma_dist.errors import TrainingError

Array = npt.NDArray[np.float32]
FIGURES = ("auc", "average_precision", "precision", "recall")


def label_figures(truth: Array, probability: Array, threshold: float) -> dict[str, Any]:
    """The figures of one label, truth and probability [n], and the counts they rest on.

    A figure that the data does not define (an AUC without positives, a precision without a positive call) is None.
    """
    known = ~np.isnan(truth)
    actual, score = truth[known].astype(int), probability[known]
    called = score >= threshold
    positives, negatives = int(actual.sum()), int((1 - actual).sum())
    both = positives > 0 and negatives > 0
    return {
        "auc": float(roc_auc_score(actual, score)) if both else None,
        "average_precision": float(average_precision_score(actual, score)) if positives else None,
        "precision": float(precision_score(actual, called)) if called.any() else None,
        "recall": float(recall_score(actual, called)) if positives else None,
        "positives": positives,
        "negatives": negatives,
        "unknown": int((~known).sum()),
        "called_positive": int(called.sum()),
    }


def figures(truth: Array, probability: Array, labels: tuple[str, ...], threshold: float) -> dict[str, Any]:
    """Figures per label and their macro means, for truth and probability [n, L].

    A macro mean is taken over the labels that have the figure and says how many these were. Raises TrainingError for a
    probability that is not a finite number of 0 to 1: nothing is ever left out of a figure.
    """
    if not (np.isfinite(probability).all() and (probability >= 0).all() and (probability <= 1).all()):
        raise TrainingError("Some predictions are not finite probabilities: no figure can be computed from them.")
    each = {
        label: label_figures(truth[:, column], probability[:, column], threshold) for column, label in enumerate(labels)
    }
    macro: dict[str, Any] = {}
    for figure in FIGURES:
        defined = [entry[figure] for entry in each.values() if entry[figure] is not None]
        macro[figure] = math.fsum(defined) / len(defined) if defined else None
        macro[f"{figure}_labels"] = len(defined)
    return {"images": len(truth), "labels": each, "macro": macro}

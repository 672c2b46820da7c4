"""Compute the metrics of ``classification`` for many weightings of the same groups at once, as a bootstrap needs.

Shapes: n images, L labels, G groups, B weightings, S sums, F metrics, C columns. A group's weight is how often a
resample drew it, and holds for all its images. Calls, Brier scores and the bins of a calibration error are sums over
images, so one product of a matrix [S, G] with the weights [G, B] gives them for all weightings. The matrix is sparse,
because BLAS starts threads, which took 20 times the CPU time on a busy machine. ``ranks`` computes the other metrics.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from melanoma_dist.metrics.calibration import bin_of
from melanoma_dist.metrics.classification import METRICS, Settings, check_probabilities
from melanoma_dist.metrics.isic_scores import OF_2017, UNKNOWN, classes_of, decided, multiclass_names
from melanoma_dist.metrics.ranks import Ranks

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]
ISIC_SCORES = "isic_scores"
"""The row of the challenges' scores among ``Weighted.columns``."""
_COUNTS = 5  # positives, called positives, negatives, called negatives, squared errors; then the bins


class Weighted:
    """Predictions summed by group. ``columns`` names each metric by its row (label, macro, micro, scores) and name."""

    def __init__(
        self, truth: Floats, probability: Floats, group: Ints, labels: tuple[str, ...], settings: Settings
    ) -> None:
        """Truth and probability [n, L]; ``group`` [n] numbers the groups from 0. Raises as ``compute_metrics``."""
        check_probabilities(probability)
        self.groups = int(group.max()) + 1
        self.columns = [(row, metric) for row in (*labels, "macro", "micro") for metric in METRICS]
        self._labels, self._prevalences = labels, settings.prevalence_of(labels)
        self._multiclass = multiclass_names(labels)
        self.columns += [(ISIC_SCORES, "isic2017")] if set(OF_2017) <= set(labels) else []
        self.columns += [(ISIC_SCORES, name) for name in self._multiclass]
        called = probability >= np.asarray(settings.threshold_of(labels), dtype=probability.dtype)
        terms = [_terms(truth[:, at], probability[:, at], called[:, at], settings.bins) for at in range(len(labels))]
        self._shape = (len(labels), _COUNTS + settings.bins)
        self._sums = self._per_group(np.concatenate(terms), group)
        self._classes = self._per_group(_class_terms(truth, probability), group)
        self._ranks = [Ranks(truth[:, at], probability[:, at], group, self.groups) for at in range(len(labels))]
        self._micro = Ranks(truth.ravel(), probability.ravel(), np.repeat(group, len(labels)), self.groups)
        ones = np.ones((self.groups, 1), dtype=np.float32)
        both_classes = ((truth == 1).any(axis=0) & (truth == 0).any(axis=0))[:, None, None]
        self._defined = np.isfinite(self._of_labels(ones, self._label_sums(ones))) & both_classes

    def of(self, weights: npt.NDArray[np.float32]) -> Floats:
        """Return every metric under every weighting, [C, B], NaN where not defined, for weights [G, B].

        A macro mean averages the labels that define the metric when every group has weight 1. It is not defined where
        a weighting does not define one of them, so that all resamples average the same labels.
        """
        sums = self._label_sums(weights)
        each = self._of_labels(weights, sums)
        micro = _stack({**self._micro.of(weights), **_of_sums(sums.sum(axis=0), None)})
        rows = each.reshape(-1, weights.shape[1])
        return np.concatenate([rows, self._macro(each), micro, self._official(weights, each)])

    def _label_sums(self, weights: npt.NDArray[np.float32]) -> Floats:
        """Return the sums of each label, [L, S, B]."""
        values = self._sums @ weights.astype(np.float64)
        return np.reshape(values, (*self._shape, weights.shape[1]))

    def _of_labels(self, weights: npt.NDArray[np.float32], sums: Floats) -> Floats:
        """Return the metrics of each label, [L, F, B]."""
        each = zip(self._ranks, sums, self._prevalences, strict=True)
        return np.stack([_stack({**ranks.of(weights), **_of_sums(sums, share)}) for ranks, sums, share in each])

    def _macro(self, each: Floats) -> Floats:
        count = self._defined.sum(axis=0)
        total = np.where(self._defined, each, 0).sum(axis=0)
        return np.asarray(np.where(count > 0, total / np.maximum(count, 1), np.nan))

    def _official(self, weights: npt.NDArray[np.float32], each: Floats) -> Floats:
        rows = []
        if set(OF_2017) <= set(self._labels):
            rows.append(np.mean([each[self._labels.index(label), METRICS.index("auc")] for label in OF_2017], axis=0))
        if self._multiclass:
            images, values = np.split(self._classes @ weights.astype(np.float64), 2)
            with np.errstate(invalid="ignore"):
                recall = (values / images).mean(axis=0) if len(images) else np.full(weights.shape[1], np.nan)
            rows += [recall] * len(self._multiclass)
        return np.reshape(rows, (-1, weights.shape[1]))

    def _per_group(self, terms: Floats, group: Ints) -> sparse.csr_matrix:
        """Sum terms [S, n] over the images of each group, [S, G]."""
        sums = [np.bincount(group, row, minlength=self.groups) for row in terms]
        return sparse.csr_matrix(np.reshape(sums, (-1, self.groups)))


def _terms(truth: Floats, probability: Floats, called: npt.NDArray[np.bool_], bins: int) -> Floats:
    """Return what each image adds to the sums of one label, [_COUNTS + bins, n]; 0 where the truth is unknown."""
    positive, negative = truth == 1, truth == 0
    error = np.where(positive | negative, probability.astype(np.float64) - truth, 0)
    binned = np.where(bin_of(probability, bins) == np.arange(bins)[:, None], error, 0)
    counts = [positive, positive & called, negative, negative & called, error**2]
    return np.concatenate([np.stack(counts), binned]).astype(np.float64)


def _class_terms(truth: Floats, probability: Floats) -> Floats:
    """Mark the images of each class that has any, then those of them that the arg max calls right, [2 classes, n]."""
    actual, predicted = classes_of(truth), decided(probability)
    present = np.unique(actual[actual != UNKNOWN])
    members = actual == present[:, None]
    return np.concatenate([members, members & (predicted == present[:, None])]).astype(np.float64)


def _of_sums(sums: Floats, prevalence: float | None) -> dict[str, Floats]:
    """Compute the metrics that follow from the sums [_COUNTS + bins, B] of one label, [B] each."""
    positives, true, negatives, false, squares = sums[:_COUNTS]
    images = positives + negatives
    with np.errstate(invalid="ignore", divide="ignore"):
        sensitivity, specificity = true / positives, (negatives - false) / negatives
        values = {
            "precision": true / (true + false),
            "sensitivity": sensitivity,
            "specificity": specificity,
            "f1": 2 * true / (true + false + positives),
            "balanced_accuracy": (sensitivity + specificity) / 2,
            "brier": squares / images,
            "calibration_error": np.abs(sums[_COUNTS:]).sum(axis=0) / images,
        }
        share = np.nan if prevalence is None else prevalence
        hits, alarms = sensitivity * share, (1 - specificity) * (1 - share)
        spared, missed = specificity * (1 - share), (1 - sensitivity) * share
        return values | {"ppv": hits / (hits + alarms), "npv": spared / (spared + missed)}


def _stack(values: dict[str, Floats]) -> Floats:
    return np.stack([values[metric] for metric in METRICS])

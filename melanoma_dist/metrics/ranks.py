"""Rank metrics (AUC and its kin) of many weightings of the same groups at once.

Shapes: G groups, B weightings, J thresholds. Images are sorted once. Only thresholds at a positive's score matter, so
all negatives between two of them fall together: one sparse product [3 J + 1, G] with the weights [G, B] gives what lies
where, and cumulative sums the ROC curves of all weightings. float32 halves the memory that all this moves: counts are
exact in it up to 2^23 images drawn, and only final sums need more.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from melanoma_dist.metrics.classification import PARTIAL_FROM, RANK_METRICS, SPECIFICITIES

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]
_TINY = np.float32(1e-30)  # below any weight: 0 / _TINY is 0, where a threshold has no image drawn


class Ranks:
    """The images of one label, sorted."""

    def __init__(self, truth: Floats, probability: Floats, group: Ints, groups: int) -> None:
        """Truth (1, 0, NaN), probability and number of the group [n], which is below ``groups``."""
        known = ~np.isnan(truth)
        positive, score, group = truth[known] == 1, probability[known], group[known]
        levels = np.unique(score[positive])
        self._levels = len(levels)
        above = len(levels) - np.searchsorted(levels, score, side="right")  # thresholds above the image
        tied = np.isin(score, levels)
        kind = np.where(positive, 0, np.where(tied, 2, 1))
        row = kind * len(levels) + above
        row = np.where((above == len(levels)) & ~tied, 3 * len(levels), row)  # negatives below every positive
        ones = np.ones(len(row), dtype=np.float32)
        self._where = sparse.csr_matrix((ones, (row, group)), shape=(3 * len(levels) + 1, groups))

    def of(self, weights: Floats) -> dict[str, Floats]:
        """The rank metrics by name, [B] each and NaN where not defined, for weights [G, B] (float32)."""
        drawn = self._where @ weights
        positive, between, tied = (drawn[at * self._levels : (at + 1) * self._levels] for at in range(3))
        true = np.cumsum(positive, axis=0)
        false = np.cumsum(between + tied, axis=0)
        negatives = drawn[-1] + (false[-1] if self._levels else 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            return _rank_metrics(positive, tied, true, false, negatives)

    def auc(self, weights: Floats) -> Floats:
        """The AUC alone, [B] and NaN where not defined, in a quarter of the time."""
        drawn = self._where @ weights
        positive, between, tied = (drawn[at * self._levels : (at + 1) * self._levels] for at in range(3))
        if not self._levels:
            return np.full(weights.shape[1], np.nan)
        false = np.cumsum(between + tied, axis=0)
        negatives = drawn[-1] + false[-1]
        with np.errstate(invalid="ignore", divide="ignore"):
            pairs = positive.sum(axis=0, dtype=np.float64) * negatives
            return np.asarray(_sum(positive, negatives - false + tied / 2) / pairs)


def _rank_metrics(positive: Floats, tied: Floats, true: Floats, false: Floats, negatives: Floats) -> dict[str, Floats]:
    """From what lies at each threshold, and at or above it, all [J, B], and the number of negatives [B]."""
    if not len(true):
        return dict.fromkeys(RANK_METRICS, np.full(len(negatives), np.nan))
    positives = true[-1].astype(np.float64)
    precision = true / np.maximum(true + false, _TINY)
    values = {
        "auc": _sum(positive, negatives - false + tied / 2) / (positives * negatives),
        "average_precision": _sum(positive, precision) / positives,
        "partial_auc_80": _partial_area(positive, tied, true, false, negatives),
    }
    for name, level in SPECIFICITIES.items():
        reached = np.argmax(true >= ((level - 1e-9) * positives).astype(np.float32), axis=0)
        specificity = 1 - np.take_along_axis(false, reached[None], axis=0)[0] / negatives.astype(np.float64)
        values[name] = np.where(positives > 0, specificity, np.nan)
    return values


def _partial_area(positive: Floats, tied: Floats, true: Floats, false: Floats, negatives: Floats) -> Floats:
    """Area between the ROC curve and sensitivity 0.8, [B].

    Where a positive lies the curve rises by it, straight from the false positives above it to those that tie with it
    too. The area right of such a step is its height above 0.8 times the specificity in the middle of that height.
    """
    floor = PARTIAL_FROM * true[-1]
    start = int((true < floor).all(axis=1).sum())  # no weighting reaches 0.8 before
    positive, tied, true, false = (values[start:] for values in (positive, tied, true, false))
    lower, upper = np.maximum(true - positive, floor), np.maximum(true, floor)
    share = ((lower + upper) / 2 - (true - positive)) / np.maximum(positive, _TINY)  # of the step, at its middle
    right = negatives - (false - tied + tied * np.where(positive > 0, share, 0))
    return np.asarray(_sum(upper - lower, right) / (true[-1].astype(np.float64) * negatives))


def _sum(first: Floats, second: Floats) -> Floats:
    """Sums of products over the thresholds, [B], in float64."""
    return np.asarray(np.einsum("jb,jb->b", first, second, dtype=np.float64))

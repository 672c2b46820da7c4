"""Score predicted lesion masks: each image against its true mask, then means over images with intervals over lesions.

Masks are compared at the size of the true mask: resize the probability to it, then apply the threshold. Scores at the
size of a network's input flatter.

An image without a lesion, or with nothing else, leaves some ratios without a denominator. They count as 1, as in the
challenge's scorer (ImageMarkup/isic-challenge-scoring): an empty prediction of an empty mask has a Jaccard index of 1.

Shapes: n images; h, w pixels of one of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import ndimage

from melanoma_dist.errors import DataError
from melanoma_dist.metrics.bootstrap import RESAMPLES, draws, means, ratios
from melanoma_dist.metrics.intervals import LEVEL, Interval, Undefined

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.floating[Any]]
FAILURE = 0.65
"""The Jaccard index below which the challenge of 2018 scores a mask with 0. 0.65 itself counts (arXiv 1902.03368)."""
FAILURES = "failures"
"""The name of the share of images below ``FAILURE``."""
_PERCENTILE = 95.0


@dataclass(frozen=True)
class Overlap:
    """Ratios of the pixels of n images, float64 [n] each, 0 to 1."""

    jaccard: Floats
    """Intersection over union."""
    dice: Floats
    sensitivity: Floats
    """Share of the lesion's pixels that were predicted."""
    specificity: Floats
    """Share of the other pixels that were not predicted."""
    accuracy: Floats

    @property
    def thresholded_jaccard(self) -> Floats:
        """The score of the challenge of 2018: the Jaccard index, or 0 below 0.65."""
        return np.where(self.jaccard >= FAILURE, self.jaccard, 0.0)


@dataclass(frozen=True)
class MaskScores:
    """Scores of one predicted mask."""

    jaccard: float
    thresholded_jaccard: float
    dice: float
    sensitivity: float
    specificity: float
    accuracy: float
    boundary_distance: float
    """See ``boundary_distance``; 0 for the same boundary, at most 1."""


METRICS = tuple(item.name for item in fields(MaskScores))


def overlap(
    true_positive: npt.ArrayLike, false_positive: npt.ArrayLike, false_negative: npt.ArrayLike,
    true_negative: npt.ArrayLike,
) -> Overlap:  # fmt: skip
    """Return the ratios of images from their counts of pixels, [n] each."""
    # In float64: 13 of 20 pixels must be 0.65, and not the float32 below it.
    tp, fp, fn, tn = (
        np.asarray(count, dtype=np.float64) for count in (true_positive, false_positive, false_negative, true_negative)
    )
    return Overlap(
        jaccard=_share(tp, tp + fp + fn),
        dice=_share(2 * tp, 2 * tp + fp + fn),
        sensitivity=_share(tp, tp + fn),
        specificity=_share(tn, tn + fp),
        accuracy=_share(tp + tn, tp + fp + fn + tn),
    )


def score_mask(truth: Mask, predicted: Mask) -> MaskScores:
    """Score a predicted mask against the true one, bool [h, w] both. Raises DataError for two sizes."""
    if truth.shape != predicted.shape:
        raise DataError(f"A mask of {predicted.shape} pixels cannot be compared with one of {truth.shape}.")
    tp, fp, fn, tn = (
        np.count_nonzero(where) for where in (truth & predicted, predicted & ~truth, truth & ~predicted,
                                              ~truth & ~predicted)
    )  # fmt: skip
    ratios_of_image = overlap(tp, fp, fn, tn)
    return MaskScores(
        **{name: float(value) for name, value in asdict(ratios_of_image).items()},
        thresholded_jaccard=float(ratios_of_image.thresholded_jaccard),
        boundary_distance=boundary_distance(truth, predicted),
    )


def boundary_distance(truth: Mask, predicted: Mask, percentile: float = _PERCENTILE) -> float:
    """Return the distance between the boundaries of two masks, bool [h, w], as a share of the image's diagonal.

    It is the Hausdorff distance with the given percentile for the maximum: from each boundary to the nearest pixel of
    the other, whichever of the two directions is larger (as MONAI and Metrics Reloaded define HD95; arXiv 2206.01653).
    The boundary of a mask are its pixels with one of 4 neighbours outside the mask; beyond the edge of the image is
    outside. It is 0 for two empty masks, and 1 where only one is empty.
    """
    if not truth.any() or not predicted.any():
        return float(truth.any() != predicted.any())
    boundaries = boundary(truth), boundary(predicted)
    both = _cut(boundaries[0] | boundaries[1])
    first, second = (edge[both] for edge in boundaries)  # distances between them lie within the box of both
    distances = (
        np.percentile(ndimage.distance_transform_edt(~to)[from_], percentile)
        for from_, to in ((first, second), (second, first))
    )
    return float(max(distances) / np.hypot(*truth.shape))


def boundary(mask: Mask) -> Mask:
    """Return the pixels of a mask [h, w] that have one of 4 neighbours outside the mask or the image."""
    edge: Mask = mask & ~ndimage.binary_erosion(mask)
    return edge


def mean_scores(
    scores: Sequence[MaskScores], group: npt.NDArray[Any], resamples: int = RESAMPLES, seed: int = 0,
    level: float = LEVEL,
) -> dict[str, Interval | Undefined]:  # fmt: skip
    """Return the mean of each score over images, and the share of failures, with intervals over lesions.

    ``group`` [n] names the lesion of each image; a resample draws whole lesions (see ``bootstrap``). The same groups
    and seed draw the same lesions, whatever the scores. Raises DataError for no images.
    """
    if not len(scores):
        raise DataError("There are no masks to score.")
    table = pd.DataFrame([asdict(each) for each in scores])
    number, names = pd.factorize(np.asarray(group), sort=True)
    weights = list(draws(np.zeros(len(names), dtype=np.int64), resamples, seed))
    values = {name: table[name].to_numpy() for name in METRICS}
    below = table["jaccard"].to_numpy() < FAILURE
    failures = ratios({FAILURES: (below, np.ones_like(below))}, number, weights, level)
    return means(values, number, weights, level) | failures


def _share(part: Floats, whole: Floats) -> Floats:
    return np.divide(part, whole, out=np.ones_like(whole), where=whole > 0)


def _cut(mask: Mask) -> tuple[slice, slice]:
    """The smallest box around the pixels of a mask that is not empty."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)

"""From probabilities of pixels to the mask of one lesion, how far to trust it, and its outline.

Shapes: h and w pixels of an image, S pixels a side of a network's input.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt
from contourpy import LineType, contour_generator
from matplotlib.path import Path as Polygon
from scipy import ndimage

from melanoma_dist.config.region import Region

Mask = npt.NDArray[np.bool_]
LEAST_AREA = 0.005
"""Share of the image below which a mask is no lesion."""
_TOLERANCE = 0.0012  # of an outline, in shares of the diagonal: a pixel of an image of 512 x 680

MaskSeen = Literal["none", "lesion", "empty"]
"""The mask that a classifier sees: none, if it takes none; an empty one where no mask is trusted."""
Box = tuple[float, float, float, float]
"""Top, left, height and width, in shares of the image."""
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
Outline = tuple[tuple[float, float], ...]
"""Corners of a polygon as (x, y), in shares of the image's width and height."""


@dataclass(frozen=True)
class Lesion:
    """Where a photograph shows its lesion, and what a classifier sees of the photograph."""

    region: Region
    """``whole`` where no lesion was found or its mask is doubtful, and for a classifier of whole images."""
    box: Box | None
    """None where no lesion was found."""
    area: float
    """Share of the image."""
    quality: float
    """Of the mask, see `mask_quality`."""
    window: Box
    """What the classifier sees."""
    outline: Outline
    """Of the mask; empty where no lesion was found."""
    mask: MaskSeen = "none"

    @property
    def trusted(self) -> bool:
        """Whether a lesion was found, by a mask that is not doubtful."""
        return "lesion" in (self.region, self.mask)


def largest_region(mask: Mask) -> Mask:
    """Return the largest connected region of a mask [h, w], its holes filled; an empty mask stays empty.

    The masks of the challenges are one region without holes, by their rules. Neighbours are the 4 beside a pixel.
    """
    numbers, count = ndimage.label(mask)
    if count > 1:
        areas = np.bincount(numbers.ravel())
        areas[0] = 0  # the background
        mask = numbers == areas.argmax()
    filled: Mask = ndimage.binary_fill_holes(mask)
    return filled


def mask_quality(probability: npt.NDArray[np.floating[Any]], threshold: float) -> float:
    """Return the Jaccard index to expect of the mask of probabilities [S, S]: 0 to 1, and 0 without a lesion.

    Expected pixels in both masks over expected pixels in either, if each pixel is lesion with its probability. It
    orders masks as the soft Dice confidence does (Borges et al. 2024, "Soft Dice Confidence: a near-optimal confidence
    estimator for selective prediction in semantic segmentation").
    """
    p = probability.astype(np.float64)
    mask = largest_region(p >= threshold)
    return float(p[mask].sum() / (mask.sum() + p[~mask].sum())) if mask.any() else 0.0


def outline(mask: Mask) -> Outline:
    """Return the outline of a mask [h, w] of one region without holes; empty for an empty mask.

    It runs along the outer edges of the mask's pixels, and is simplified by less than anybody sees.
    """
    height, width = mask.shape
    contours = contour_generator(z=np.pad(mask, 1).astype(np.float32), line_type=LineType.Separate)
    lines = cast(list[npt.NDArray[np.float64]], contours.lines(0.5))
    if not lines:
        return ()
    longest = Polygon(max(lines, key=len))
    longest.simplify_threshold = _TOLERANCE * float(np.hypot(height, width))
    corners = np.asarray(longest.cleaned(simplify=True).vertices)[:-1]  # the last one only ends the path
    corners = np.clip((corners - 0.5) / (width, height), 0, 1).round(4)
    # A polygon closes itself: the path repeats its first corner at the end.
    return tuple(dict.fromkeys((float(x), float(y)) for x, y in corners))

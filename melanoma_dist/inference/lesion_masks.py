"""From probabilities of pixels to the mask of one lesion, and how far to trust it.

Shapes: h and w pixels of an image, S pixels a side of a network's input.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.special import entr

Mask = npt.NDArray[np.bool_]
LEAST_AREA = 0.005
"""Share of the image below which a mask is no lesion."""


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


def mask_quality(probability: npt.NDArray[np.floating[Any]]) -> float:
    """Return one minus the mean entropy of pixels [S, S], in bits: 1 where every pixel is certain, 0 where none is."""
    p = np.clip(probability.astype(np.float64), 0, 1)
    return float(np.clip(1 - (entr(p) + entr(1 - p)).mean() / np.log(2), 0, 1))

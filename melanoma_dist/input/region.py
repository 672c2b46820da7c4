"""Windows around lesions: which part of an image is decoded, instead of all of it.

A window changes where a crop lies and how large it is, and nothing else: the graph decodes less of the image.

Shapes: n images. Windows are in shares of the image, 0 to 1, as (y, x).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from melanoma_dist.input.stream import BoxJitter, Floats, Indices, Parameters

Array = npt.NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Windows:
    """The windows of n images."""

    anchor: Floats
    """[n, 2] upper left corner."""
    extent: Floats
    """[n, 2] height and width."""

    def __getitem__(self, samples: Indices | slice) -> Windows:
        return Windows(self.anchor[samples], self.extent[samples])


def windows_around(boxes: Array, sizes: Array, margin: float) -> Windows:
    """Return the smallest square windows that hold boxes with a margin.

    ``boxes`` [n, 4]: top, left, height and width in shares of the image; ``sizes`` [n, 2]: height and width of the
    image in pixels; ``margin``: on each side, in shares of the box's own side. A window is square in pixels. It is
    moved into the image where it would leave it, and is no longer square where the image's shorter side is too short.
    """
    boxes, sizes = boxes.astype(np.float64), sizes.astype(np.float64)
    centre = boxes[:, :2] + boxes[:, 2:] / 2
    side = (boxes[:, 2:] * (1 + 2 * margin) * sizes).max(axis=1, keepdims=True)  # pixels
    return _inside(centre, side / sizes)


def jittered(windows: Windows, jitter: BoxJitter) -> Windows:
    """Move and resize windows at random, as a segmenter's boxes deviate from the true ones; whole images stay whole."""
    extent = windows.extent.astype(np.float64)
    centre = windows.anchor + extent / 2 + jitter.shift * extent
    changed = _inside(centre, extent * jitter.zoom[:, None])
    whole = (windows.extent >= 1).all(axis=1, keepdims=True)
    return Windows(np.where(whole, windows.anchor, changed.anchor), np.where(whole, windows.extent, changed.extent))


def within(parameters: Parameters, windows: Windows) -> Parameters:
    """Return the parameters whose crops lie in windows as they lay in whole images."""
    extent = windows.extent * parameters.extent
    anchor = np.minimum(windows.anchor + windows.extent * parameters.anchor, 1 - extent)
    return replace(parameters, anchor=anchor, extent=extent)


def _inside(centre: npt.NDArray[np.float64], extent: npt.NDArray[np.float64]) -> Windows:
    sides: Floats = np.minimum(extent, 1.0).astype(np.float32)
    # Rounded first: the end of a window, anchor + extent, must not lie beyond the image by a rounding.
    corner: Floats = np.clip(centre - sides / 2, 0, 1 - sides).astype(np.float32)
    return Windows(np.minimum(corner, 1 - sides), sides)

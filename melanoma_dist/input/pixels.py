"""The pixels of a rank without a GPU: windows of decoded images to the square input of a model, by PyTorch's kernels.

On a CPU they cost a fraction of DALI's operators. `resize` is PyTorch's antialiased kernel for bytes, whose pixels are
those of PIL. A mirrored image has the bytes of that resize. A turned image is resized only along sides that have more
pixels than the output needs, to just as many, and then sampled once, without rounding to bytes before the colour map.

Shapes: windows are uint8 [h, w, C] of 3 channels, or 4 with a mask; the output is float32 [S, S, C] of S pixels a side.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from melanoma_dist.input.stream import Floats

AUGMENTATION = "turned images sampled once"
"""How training images are computed from decoded ones. Change the text with anything that changes their pixels: it is
part of a training's arithmetic, and no training resumes with another."""

Bytes = npt.NDArray[np.uint8]


def mirrored(window: Bytes, size: Floats, colour: Floats, exchange: bool) -> Floats:
    """Resize to ``size`` (height, width; negative: mirrored along it), exchange the axes, map the colours."""
    height, width = (int(side) for side in np.abs(size))
    planes = resize(window, height, width)
    planes = planes.flip([axis + 1 for axis in (0, 1) if size[axis] < 0])
    planes = planes.transpose(1, 2) if exchange else planes
    return coloured(planes.to(torch.float32, memory_format=torch.contiguous_format), colour)


def turned(window: Bytes, size: Floats, colour: Floats, turn: Floats, side: int) -> Floats:
    """Sample a window at the pixels of the output.

    ``turn`` [2, 3] maps (x, y) of the output in pixels to shares of the window. ``size``: the largest height and width
    that the window is sampled at; its signs do not count.
    """
    height, width = (int(min(most, pixels)) for most, pixels in zip(np.abs(size), window.shape[:2], strict=True))
    planes = resize(window, height, width).float()[None]
    sampled = functional.grid_sample(planes, _places(turn, side), padding_mode="border", align_corners=False)
    return coloured(sampled[0], colour)


def resize(window: Bytes, height: int, width: int) -> torch.Tensor:
    """Resize to uint8 [C, height, width], bilinear and antialiased."""
    planes = torch.from_numpy(window).permute(2, 0, 1)[None]
    return functional.interpolate(planes, (height, width), mode="bilinear", antialias=True)[0]


def coloured(planes: torch.Tensor, colour: Floats) -> Floats:
    """Map colours: float32 planes [C, H, W] to [H, W, C]; ``colour`` is the map [C, C + 1]."""
    channels = len(colour)
    matrix, shift = torch.from_numpy(colour[:, :channels]), torch.from_numpy(colour[:, channels:])
    mapped = torch.addmm(shift, matrix, planes.view(channels, -1)).numpy()
    pixels = np.empty((*planes.shape[1:], channels), dtype=np.float32)
    for channel in range(channels):  # by far the fastest way to change this layout
        pixels.reshape(-1, channels)[:, channel] = mapped[channel]
    return pixels


def _places(turn: Floats, side: int) -> torch.Tensor:
    """Where to sample, [1, S, S, 2], as PyTorch counts: (x, y) from -1 to 1 over the window."""
    # Complex numbers x + iy: a place is the sum of a number of its column and one of its row.
    column, row, shift = turn[0] + np.complex64(1j) * turn[1]
    centres = np.arange(side, dtype=np.float32) + np.float32(0.5)
    columns, rows = 2 * column * centres, 2 * (row * centres + shift) - np.complex64(1 + 1j)
    return torch.view_as_real(torch.from_numpy(columns + rows[:, None]))[None]

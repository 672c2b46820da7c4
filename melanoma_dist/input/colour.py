"""Brightness, contrast, saturation, hue and normalisation as one affine map per sample: ``out = M @ rgb + t``.

Saturation and hue act in the YIQ space (NTSC 1953): a scaling and a rotation of the chroma plane. Contrast turns about
mid-grey (127.5). Values are not clipped to 0..255 between the steps, so strong settings lose no information.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from melanoma_dist.input.stream import Floats, Parameters

_GREY = 127.5
_RGB_TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
_YIQ_TO_RGB = np.linalg.inv(_RGB_TO_YIQ)


def normalisation(mean: Sequence[float], std: Sequence[float], count: int) -> Floats:
    """Return the map of normalisation alone, float32 [count, 3, 4]; mean and std in shares of white, as in timm."""
    return _normalised(np.broadcast_to(np.eye(3), (count, 3, 3)), np.zeros((count, 3)), mean, std)


def colour_map(parameters: Parameters, mean: Sequence[float], std: Sequence[float]) -> Floats:
    """Return the map of each sample's colour parameters and normalisation, float32 [n, 3, 4], for RGB in 0..255."""
    angle = np.deg2rad(parameters.hue.astype(np.float64))
    cosine, sine = parameters.saturation * np.cos(angle), parameters.saturation * np.sin(angle)
    chroma = np.zeros((len(angle), 3, 3))
    chroma[:, 0, 0] = 1.0
    chroma[:, 1, 1] = chroma[:, 2, 2] = cosine
    chroma[:, 1, 2], chroma[:, 2, 1] = sine, -sine
    contrast, brightness = parameters.contrast[:, None], parameters.brightness[:, None]
    matrix = (brightness * contrast)[..., None] * (_YIQ_TO_RGB @ chroma @ _RGB_TO_YIQ)
    shift = np.broadcast_to(brightness * (1 - contrast) * _GREY, (len(angle), 3))
    return _normalised(matrix, shift, mean, std)


def with_mask(colour: Floats) -> Floats:
    """Extend maps [n, 3, 4] by a fourth channel, the mask: [n, 4, 5]. Its values 0 to 255 become 0 to 1."""
    extended = np.zeros((len(colour), 4, 5), dtype=np.float32)
    extended[:, :3, :3], extended[:, :3, 4], extended[:, 3, 3] = colour[:, :, :3], colour[:, :, 3], 1 / 255
    return extended


def _normalised(
    matrix: npt.NDArray[np.float64], shift: npt.NDArray[np.float64], mean: Sequence[float], std: Sequence[float]
) -> Floats:
    scale = 1.0 / (255.0 * np.asarray(std))
    offset = -np.asarray(mean) / np.asarray(std)
    rows = np.concatenate([matrix * scale[:, None], (shift * scale + offset)[..., None]], axis=2)
    return np.ascontiguousarray(rows, dtype=np.float32)

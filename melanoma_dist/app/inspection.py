"""Inspects one image file: prepares it for the models and measures how blurred it is.

This runs in worker processes: it imports little and returns plain data.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import uniform_filter1d

from melanoma_dist.data.photo import Photo, PhotoJob, describe_failure, prepare_photo, read_photo
from melanoma_dist.storage.images import open_image

BLURRED = 0.54
"""Blur from which an image counts as blurred: 1 % of the challenges' images reach it (`benchmarks/blur.py`)."""

_SIDE = 224  # pixels of the shorter side at which blur is measured: about what most models see
_WINDOW = 5  # pixels over which the second, blurred copy is averaged


@dataclass(frozen=True)
class InspectedPhoto:
    """A prepared image and its blur, NaN if the image cannot be read."""

    photo: Photo
    blur: float


def inspect_photo(job: PhotoJob) -> InspectedPhoto:
    """Prepare the image as `data prepare` does and measure its blur. Never raises for bad files."""
    return _with_blur(prepare_photo(job))


def inspect_bytes(image_id: str, data: bytes, size: int) -> InspectedPhoto:
    """Do the same with the bytes of a file. Never raises for bad ones."""
    try:
        photo, _ = read_photo(image_id, data, size)
    except Exception as error:  # decoders raise a dozen kinds of errors for corrupt bytes
        return unreadable(image_id, data, describe_failure(error))
    return _with_blur(replace(photo, source=Path(image_id)))


def unreadable(image_id: str, data: bytes, reason: str) -> InspectedPhoto:
    """The result for bytes that cannot be read as an image."""
    failures = ((Path(image_id), reason),)
    return InspectedPhoto(Photo(image_id, failures, source_sha256=hashlib.sha256(data).hexdigest()), math.nan)


def _with_blur(photo: Photo) -> InspectedPhoto:
    if photo.jpeg is None:
        return InspectedPhoto(photo, math.nan)
    with open_image(photo.jpeg) as image:
        return InspectedPhoto(photo, measure_blur(image))


def measure_blur(image: Image.Image) -> float:
    """The blur of an image, 0 (sharp) to 1: the share of its differences between neighbours that one more blur keeps.

    Crete et al. 2007, "The blur effect: perception and estimation with a new no-reference perceptual blur metric". A
    blur takes much from a sharp image and little from a blurred one. The direction of the greater blur counts, so that
    motion blur is noticed. Blur that vanishes at the size that models see does not count.
    """
    scale = _SIDE / min(image.size)
    if scale < 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    grey = np.asarray(image.convert("RGB"), dtype=np.float32).mean(axis=2)
    return max(_blur_along(grey, axis) for axis in (0, 1))


def _blur_along(grey: npt.NDArray[np.float32], axis: int) -> float:
    again = uniform_filter1d(grey, _WINDOW, axis=axis)
    before, after = np.abs(np.diff(grey, axis=axis)), np.abs(np.diff(again, axis=axis))
    lost = np.maximum(0, before - after).sum(dtype=np.float64)
    return float(1 - lost / max(before.sum(dtype=np.float64), 1e-9))

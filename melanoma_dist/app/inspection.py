"""Inspects one image file: prepares it for the models and measures how blurred it is.

This runs in worker processes: it imports little and returns plain data.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.ndimage import uniform_filter1d

from melanoma_dist.data.photo import Photo, describe_failure, read_photo
from melanoma_dist.storage.image_error import ImageError
from melanoma_dist.storage.untrusted import NOWHERE

BLURRED = 0.56
"""Blur from which an image counts as blurred: 1 % of the challenges' images reach it (`benchmarks/blur.py`)."""

_SIDE = 224  # pixels of the shorter side at which blur is measured: about what most models see
_WINDOW = 5  # pixels over which the second, blurred copy is averaged


@dataclass(frozen=True)
class Reason:
    """A doubt or an error, for programs: a code that never changes, and the values in its sentence."""

    code: str
    values: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class InspectedPhoto:
    """A prepared image and its blur, NaN if the image cannot be read."""

    photo: Photo
    blur: float
    error: Reason | None = None
    """Why it cannot be read; None if it can."""
    about: Mapping[str, str] = field(default_factory=dict)
    """What is known of the patient: `age`, `sex`, `site`. What is absent is unknown."""


def inspect_bytes(image_id: str, data: bytes, size: int) -> InspectedPhoto:
    """Prepare an image as `data prepare` does and measure its blur. Never raises for bad bytes."""
    try:
        photo, pixels, _ = read_photo(image_id, data, size)
        return InspectedPhoto(replace(photo, source=Path(image_id)), measure_blur(pixels))
    except ImageError as error:
        return unreadable(image_id, data, error)
    except MemoryError:
        return unreadable(image_id, data, ImageError("memory", "decoding it takes too much memory"))
    except Exception as error:  # decoders raise a dozen kinds of errors for corrupt bytes
        text = describe_failure(error)
        return unreadable(image_id, data, ImageError("undecodable", text, reason=text))


def unreadable(image_id: str, data: bytes, error: ImageError) -> InspectedPhoto:
    """The result for bytes that cannot be read as an image."""
    failures = ((Path(image_id), describe_failure(error)),)
    photo = Photo(image_id, failures, source_sha256=hashlib.sha256(data).hexdigest())
    return InspectedPhoto(photo, math.nan, Reason(error.code, error.values))


def missing(path: Path, error: OSError | ValueError) -> InspectedPhoto:
    """The result for a file that cannot be read at all."""
    # The path is told beside the reason.
    text = error.strerror if isinstance(error, OSError) and error.strerror else describe_failure(error)
    if os.path.islink(path) and isinstance(error, OSError) and error.errno in NOWHERE:
        text = f"a link that leads nowhere ({text})"
    return InspectedPhoto(Photo(str(path), ((path, text),)), math.nan, Reason("missing", {"reason": text}))


def measure_blur(image: Image.Image) -> float:
    """The blur of an image, 0 (sharp) to 1: the share of its differences between neighbours that one more blur keeps.

    Crete et al. 2007, "The blur effect: perception and estimation with a new no-reference perceptual blur metric". A
    blur takes much from a sharp image and little from a blurred one. The direction of the greater blur counts, so that
    motion blur is noticed. Blur that vanishes at the size that models see does not count.
    """
    # As floating-point numbers: the steps between 8-bit values of a very blurred image would look like detail.
    grey, scale = image.convert("RGB").convert("F"), _SIDE / min(image.size)
    if scale < 1:
        grey = grey.resize((round(grey.width * scale), round(grey.height * scale)), Image.Resampling.LANCZOS)
    values = np.asarray(grey)
    return max(_blur_along(values, axis) for axis in (0, 1))


def _blur_along(grey: npt.NDArray[np.float32], axis: int) -> float:
    again = uniform_filter1d(grey, _WINDOW, axis=axis)
    before, after = np.abs(np.diff(grey, axis=axis)), np.abs(np.diff(again, axis=axis))
    lost = np.maximum(0, before - after).sum(dtype=np.float64)
    return float(1 - lost / max(before.sum(dtype=np.float64), 1e-9))

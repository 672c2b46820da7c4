"""Lesion masks: what a file must be to become the mask of an image, and how a stored mask is read.

A mask is 0 for skin and one other value for the lesion, as large as its image. It runs in worker processes: it imports
little.
"""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from melanoma_dist.storage.image_error import ImageError
from melanoma_dist.storage.images import PHOTOGRAPHS, open_image

Mask = npt.NDArray[np.bool_]

UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""The transposition that turns an image upright, by EXIF orientation."""
_SIDEWAYS = 5  # from this orientation on, width and height are exchanged
_SHOWN = 4


def encode_mask(data: bytes, orientation: int, source: tuple[int, int], size: tuple[int, int]) -> bytes:
    """Prepare the mask of an image from the bytes of its file: PNG, one channel, 0 or 255.

    ``source``: width and height of the image in its file, ``orientation`` its EXIF orientation there; ``size``: of the
    prepared image. The mask of a picture that lies on its side may lie so too, or be upright.

    Raises ImageError for a mask that is not binary, is empty, or has another shape than its image; OSError or
    ValueError, or what else a decoder raises, for corrupt bytes.
    """
    with open_image(data, PHOTOGRAPHS) as image:
        grey = image.convert("L")
    lesion = Image.fromarray(_lesion(np.asarray(grey)).astype(np.uint8) * 255)
    # By the prepared size: Pillow gives a TIFF's own size as if it were upright already.
    if _same_shape(grey.size, size[::-1] if orientation >= _SIDEWAYS else size):
        method = UPRIGHT.get(orientation)
        lesion = lesion if method is None else lesion.transpose(method)
    elif not _same_shape(grey.size, size):
        raise _other_shape(grey.size, source)
    resized = np.asarray(lesion.resize(size, Image.Resampling.BILINEAR)) >= 128
    buffer = io.BytesIO()
    Image.fromarray(resized.astype(np.uint8) * 255).save(buffer, "PNG")
    return buffer.getvalue()


def decode_mask(png: bytes) -> Mask:
    """Read a stored mask, bool [h, w]: true where the lesion is. Raises OSError or ValueError for corrupt bytes."""
    with open_image(png) as image:
        return np.asarray(image.convert("L")) >= 128


def _lesion(grey: npt.NDArray[np.uint8]) -> Mask:
    """Where the lesion is, bool [h, w]. Raises ImageError for a mask that is not binary, or empty."""
    values = np.unique(grey)
    if len(values) > 2 or (len(values) == 2 and values[0] != 0):
        listed = ", ".join(map(str, values[:_SHOWN])) + (" ..." if len(values) > _SHOWN else "")
        text = f"a mask of {len(values)} values ({listed}): it must be 0 for skin and one other value for the lesion"
        raise ImageError("mask_values", text, values=len(values))
    if not grey.any():
        raise ImageError("mask_empty", "an empty mask: it shows no lesion")
    lesion: Mask = grey > 0
    return lesion


def _same_shape(size: tuple[int, int], image: tuple[int, int]) -> bool:
    """Whether a mask fits its image, to the pixel of the smaller one: collections keep images in several sizes."""
    (width, height), (across, down) = size, image
    return abs(width * down - height * across) <= max(width, height, across, down)


def _other_shape(size: tuple[int, int], image: tuple[int, int]) -> ImageError:
    (width, height), (across, down) = size, image
    turned = ", as if it were turned by 90 degrees" if _same_shape((height, width), image) else ""
    text = f"a mask of {width}x{height} pixels for an image of {across}x{down}{turned}: it does not fit"
    return ImageError("mask_shape", text, width=width, height=height)

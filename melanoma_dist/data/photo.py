"""Prepares one image for a shard: reads it, turns it upright, shrinks it, and encodes it from its pixels alone.

This runs in worker processes: it imports little and returns plain data.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass, replace
from pathlib import Path

import imagehash
import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image

from melanoma_dist.data.masks import UPRIGHT, encode_mask
from melanoma_dist.storage.image_error import ImageError
from melanoma_dist.storage.images import MAX_BYTES, PHOTOGRAPHS, open_image
from melanoma_dist.storage.untrusted import read_bytes

PIXELS = 2
"""Version of the pixels that are made of a file: a preparation does not go on with those of another one."""

HASH_SIDE = 16
"""Bits per row, and rows, of the perceptual hash."""

_QUALITY = 92
# Chroma at half resolution, like the challenges' own files: training waits for decoding.
_SUBSAMPLING = "4:2:0"

_LONGEST_SIDE = 65_500  # pixels; the limit of libjpeg
_SHORTEST_SIDE = 32  # pixels; the smallest input of a network
_DEPTHS = (8, 10, 12, 14, 16)  # bits of cameras and scanners
_DARKEST = 16  # of 255: colours that are all below it are of 12 bits in 16, or show nothing
_DARKEST_OF_16_BITS = 64  # the same for 14 bits in 16
_FLATTEST = 8  # levels of 255 between the darkest and the brightest value of a picture
# A side that shrinks to a quarter or less is first averaged over blocks, to no less than twice its length. That takes
# half the time or less, and changes values by 0.2 of 255 on average (`benchmarks/RESULTS.md`).
_REDUCING_GAP = 2.0


@dataclass(frozen=True, slots=True)
class PhotoJob:
    """One image to prepare: its possible files, the most likely first, and its mask."""

    image_id: str
    files: tuple[Path, ...]
    mask: Path | None
    size: int


@dataclass(frozen=True)
class Photo:
    """A prepared image. ``jpeg`` is None if no file could be decoded; ``failures`` has (file, reason) pairs."""

    image_id: str
    failures: tuple[tuple[Path, str], ...]
    source: Path | None = None
    source_sha256: str = ""
    source_width: int = 0
    source_height: int = 0
    width: int = 0
    height: int = 0
    perceptual_hash: str = ""
    jpeg: bytes | None = None
    mask: bytes | None = None


def prepare_photo(job: PhotoJob) -> Photo:
    """Decode the largest file of an image that shows something and re-encode it. Never raises for bad files.

    The result is RGB, upright, its shorter side at most ``job.size`` (never enlarged), a baseline JPEG of quality 92.
    Colour profiles are ignored, not applied: few of these cameras embed one. A file with several pictures gives its
    first.
    """
    failures: list[tuple[Path, str]] = []
    for path in _largest_first(job.files, failures):
        try:
            photo, _, orientation = read_photo(job.image_id, read_bytes(path, MAX_BYTES), job.size)
        except Exception as error:  # decoders raise a dozen kinds of errors for corrupt bytes
            failures.append((path, describe_failure(error)))
            continue
        mask = _prepare_mask(job.mask, orientation, photo, failures)
        return replace(photo, failures=tuple(failures), source=path, mask=mask)
    return Photo(job.image_id, tuple(failures))


def read_photo(image_id: str, data: bytes, size: int) -> tuple[Photo, Image.Image, int]:
    """Prepare an image from the bytes of its file. Returns its pixels before they were encoded, and its orientation in
    the file, too.

    Raises OSError or ValueError, or what else a decoder raises on corrupt bytes.
    """
    with open_image(data, PHOTOGRAPHS) as image:
        source_width, source_height = image.size
        pixels, orientation = _prepared(image, size)
    photo = Photo(
        image_id=image_id,
        failures=(),
        source_sha256=hashlib.sha256(data).hexdigest(),
        source_width=source_width,
        source_height=source_height,
        width=pixels.width,
        height=pixels.height,
        perceptual_hash=perceptual_hash(pixels),
        jpeg=_encode(pixels),
    )
    return photo, pixels, orientation


def prepare_bytes(data: bytes, size: int) -> tuple[Image.Image, bytes]:
    """The pixels and the JPEG bytes that `prepare_photo` makes of a file's bytes.

    Raises OSError or ValueError, or what else a decoder raises on corrupt bytes.
    """
    with open_image(data, PHOTOGRAPHS) as image:
        return prepare_image(image, size)


def prepare_image(image: Image.Image, size: int) -> tuple[Image.Image, bytes]:
    """The same of an image that is open. Raises as `prepare_bytes` does."""
    pixels, _ = _prepared(image, size)
    return pixels, _encode(pixels)


def _prepared(image: Image.Image, size: int) -> tuple[Image.Image, int]:
    """Decode an image, turn it upright, shrink it and judge its pixels. Returns its orientation in the file too.

    Raises ImageError for an image that is tiny or shows nothing.
    """
    if min(image.size) < _SHORTEST_SIDE:
        text = f"{image.width}x{image.height} pixels, too small: at least {_SHORTEST_SIDE} per side"
        raise ImageError("too_small", text, width=image.width, height=image.height, least=_SHORTEST_SIDE)
    darkest = _DARKEST_OF_16_BITS if ";16" in str(getattr(image, "tile", ())) else _DARKEST
    orientation = _orientation(image)
    image.load()
    # The orientation is read again: Pillow turns TIFF images while it loads them, and no others.
    pixels = _shrink(_upright(_as_rgb(image), _orientation(image)), size)
    _refuse_blank(pixels, darkest)
    return pixels, orientation


def _refuse_blank(image: Image.Image, darkest: int) -> None:
    """Raise ImageError for an image without a visible picture."""
    low, high = zip(*image.getextrema(), strict=True)
    if (brightest := max(high)) < darkest:
        raise ImageError("too_dark", f"too dark: its brightest value is {brightest} of 255", brightest=brightest)
    spread = max(top - bottom for top, bottom in zip(high, low, strict=True))
    if spread < _FLATTEST:
        raise ImageError("blank", f"it shows nothing: its values differ by {spread} of 255", spread=spread)


def perceptual_hash(image: Image.Image) -> str:
    """The difference hash of an image, 64 hexadecimal digits: copies of a photograph differ in few bits."""
    return str(imagehash.dhash(image, HASH_SIDE))


def _largest_first(files: tuple[Path, ...], failures: list[tuple[Path, str]]) -> list[Path]:
    """The files by decreasing number of pixels, in their order for ties, without files with unreadable headers."""
    if len(files) == 1:
        return list(files)
    areas: dict[Path, int] = {}
    for path in files:
        try:
            with open_image(read_bytes(path, MAX_BYTES), PHOTOGRAPHS) as image:
                areas[path] = image.width * image.height
        except Exception as error:  # as above
            failures.append((path, describe_failure(error)))
    return sorted(areas, key=lambda path: -areas[path])


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # corrupt EXIF does not affect the pixels: treat the image as upright
        return 1


def _as_rgb(image: Image.Image) -> Image.Image:
    """The pixels of a decoded image as RGB, without the copy that ``convert`` makes of an RGB image."""
    if image.mode == "F":
        text = "its pixels are floating-point numbers, of which none means white: save it with 8 or 16 bits"
        raise ImageError("floating_point", text)
    if image.mode.startswith("I"):  # Pillow would clip: all values above 255 would become white
        image = _from_deep(np.asarray(image))
    return image if image.mode == "RGB" else image.convert("RGB")


def _from_deep(grey: npt.NDArray[np.integer]) -> Image.Image:
    """Grey values of up to 16 bits as 8 bits.

    Files keep 12 bits in 16 without saying so. White is therefore the largest number of the smallest usual depth (8,
    10, 12, 14 or 16 bits) that holds the brightest value.
    """
    brightest = int(grey.max())
    if grey.min() < 0 or brightest >= 2 ** _DEPTHS[-1]:
        text = f"its values are {grey.min()} to {brightest}, not 0 to 65535: save it with 8 or 16 bits"
        raise ImageError("values", text, low=int(grey.min()), high=brightest)
    white = next(2**depth - 1 for depth in _DEPTHS if brightest < 2**depth)
    deep = grey.astype(np.uint32)
    deep *= 255  # in place: a bomb of 64 million pixels must not take a gigabyte
    deep += white // 2
    deep //= white
    return Image.fromarray(deep.astype(np.uint8))


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    method = UPRIGHT.get(orientation)
    return image if method is None else image.transpose(method)


def _shrink(image: Image.Image, size: int) -> Image.Image:
    """Resize with antialiasing so that the shorter side is ``size``. A smaller image keeps its size."""
    shorter = min(image.size)
    if shorter <= size:
        return image
    width, height = (max(1, round(side * size / shorter)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=_REDUCING_GAP)


def _encode(image: Image.Image) -> bytes:
    if max(image.size) > _LONGEST_SIDE:
        text = f"{image.width}x{image.height} pixels, and a JPEG allows at most {_LONGEST_SIDE} per side"
        raise ImageError("too_long", text, width=image.width, height=image.height, most=_LONGEST_SIDE)
    # Rebuild it from its pixels: Pillow would copy comments and profiles of the original into the new file.
    bare = Image.fromarray(np.asarray(image))
    buffer = io.BytesIO()
    bare.save(buffer, "JPEG", quality=_QUALITY, subsampling=_SUBSAMPLING)
    return buffer.getvalue()


def _prepare_mask(path: Path | None, orientation: int, photo: Photo, failures: list[tuple[Path, str]]) -> bytes | None:
    """The mask of a prepared image; None if it is missing or unfit, with the reason in ``failures``."""
    if path is None:
        return None
    source, size = (photo.source_width, photo.source_height), (photo.width, photo.height)
    try:
        return encode_mask(read_bytes(path, MAX_BYTES), orientation, source, size)
    except Exception as error:  # as above
        failures.append((path, describe_failure(error)))
        return None


def describe_failure(error: Exception) -> str:
    """A decoder's message in one line."""
    return " ".join(str(error).split()) or type(error).__name__

"""One photograph on its way into a shard: read, made upright, shrunk, and written again from its pixels alone.

This runs in worker processes; it imports little and answers with plain data.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

import imagehash
import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from melanoma_dist.storage.images import MAX_BYTES, open_image
from melanoma_dist.storage.untrusted import read_bytes

HASH_SIDE = 16
"""The perceptual hash has so many bits in a row, and so many rows."""

_QUALITY = 92
# Chroma at half resolution: so the challenges' own files store it, and decoding is what training waits for.
_SUBSAMPLING = "4:2:0"

_LONGEST_SIDE = 65_500  # pixels, of libjpeg

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns an image upright, by its EXIF orientation."""


@dataclass(frozen=True, slots=True)
class PhotoJob:
    """One image to prepare: the files that may hold it, best guess first, and its mask."""

    image_id: str
    files: tuple[Path, ...]
    mask: Path | None
    size: int


@dataclass(frozen=True)
class Photo:
    """What became of it. ``jpeg`` is None when no file could be decoded; ``failures`` holds (file, reason) pairs."""

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
    """Decode the largest file of an image that can be decoded, and encode it anew. Never raises for bad files.

    The result is RGB, upright, its shorter side at most ``job.size`` (never enlarged), a baseline JPEG of quality 92.
    Colour profiles are ignored, not applied: of these cameras few embed one, and models are trained without.
    """
    failures: list[tuple[Path, str]] = []
    for path in _largest_first(job.files, failures):
        try:
            data = read_bytes(path, MAX_BYTES)
            with open_image(data) as image:
                source_width, source_height = image.size
                orientation = _orientation(image)
                pixels = _prepared(image, orientation, job.size)
            hashed, jpeg = perceptual_hash(pixels), _encode(pixels)
        except Exception as error:  # decoders fail in a dozen ways on damaged bytes
            failures.append((path, _reason(error)))
            continue
        mask = _prepare_mask(job.mask, orientation, pixels.size, failures)
        return Photo(
            image_id=job.image_id,
            failures=tuple(failures),
            source=path,
            source_sha256=hashlib.sha256(data).hexdigest(),
            source_width=source_width,
            source_height=source_height,
            width=pixels.width,
            height=pixels.height,
            perceptual_hash=hashed,
            jpeg=jpeg,
            mask=mask,
        )
    return Photo(job.image_id, tuple(failures))


def prepare_bytes(data: bytes, size: int) -> tuple[Image.Image, bytes]:
    """The pixels and the JPEG bytes that `prepare_photo` makes of a file's bytes.

    Raises OSError or ValueError, or what else a decoder raises on corrupt bytes.
    """
    with open_image(data) as image:
        pixels = _prepared(image, _orientation(image), size)
    return pixels, _encode(pixels)


def _prepared(image: Image.Image, orientation: int, size: int) -> Image.Image:
    return _shrink(_upright(_as_rgb(image), orientation), size)


def perceptual_hash(image: Image.Image) -> str:
    """The difference hash of an image, 64 hexadecimal digits: copies of a photograph differ in few bits."""
    return str(imagehash.dhash(image, HASH_SIDE))


def _largest_first(files: tuple[Path, ...], failures: list[tuple[Path, str]]) -> list[Path]:
    """The files by falling number of pixels (their order breaks ties), without those whose header is unreadable."""
    if len(files) == 1:
        return list(files)
    areas: dict[Path, int] = {}
    for path in files:
        try:
            with open_image(read_bytes(path, MAX_BYTES)) as image:
                areas[path] = image.width * image.height
        except Exception as error:  # as above
            failures.append((path, _reason(error)))
    return sorted(areas, key=lambda path: -areas[path])


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # damaged EXIF says nothing about the pixels: the image counts as upright
        return 1


def _as_rgb(image: Image.Image) -> Image.Image:
    """The image decoded, without the copy that ``convert`` makes of one that is RGB already."""
    image.load()
    if image.mode.startswith("I;16"):  # Pillow would clip: everything above 255 of 65535 would be white
        deep = np.asarray(image).astype(np.uint32)
        deep += 128  # in place: a bomb of 64 million pixels must not take a gigabyte
        deep //= 257
        image = Image.fromarray(deep.astype(np.uint8))
    return image if image.mode == "RGB" else image.convert("RGB")


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    method = _UPRIGHT.get(orientation)
    return image if method is None else image.transpose(method)


def _shrink(image: Image.Image, size: int) -> Image.Image:
    """Resize, antialiased, so that the shorter side is ``size``; a smaller image stays as it is."""
    shorter = min(image.size)
    if shorter <= size:
        return image
    width, height = (max(1, round(side * size / shorter)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _encode(image: Image.Image) -> bytes:
    if max(image.size) > _LONGEST_SIDE:
        raise ValueError(f"{image.width}x{image.height} pixels, and a JPEG has no side above {_LONGEST_SIDE}")
    # Rebuilt from its pixels: Pillow would carry comments and profiles of the original into the new file.
    bare = Image.fromarray(np.asarray(image))
    buffer = io.BytesIO()
    bare.save(buffer, "JPEG", quality=_QUALITY, subsampling=_SUBSAMPLING)
    return buffer.getvalue()


def _prepare_mask(
    path: Path | None, orientation: int, size: tuple[int, int], failures: list[tuple[Path, str]]
) -> bytes | None:
    """A lesion mask as PNG of 0 and 255, turned and sized like its image, or None if there is none to be read."""
    if path is None:
        return None
    try:
        with open_image(read_bytes(path, MAX_BYTES)) as image:
            mask = _upright(image.convert("L"), orientation).resize(size, Image.Resampling.BILINEAR)
    except Exception as error:  # as above
        failures.append((path, _reason(error)))
        return None
    buffer = io.BytesIO()
    Image.fromarray(np.where(np.asarray(mask) >= 128, 255, 0).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def _reason(error: Exception) -> str:
    """A decoder's complaint as one line, without the memory address Pillow puts into it."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return " ".join(str(error).split()) or type(error).__name__

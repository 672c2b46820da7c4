"""Open untrusted images: of the formats listed here whatever the file name says, of a size that can be decoded.

Pillow goes by the bytes and knows some forty formats. One of them (EPS) starts another program, and a file called
``.jpg`` may hold any of them; so all others are switched off.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Collection

from PIL import ExifTags, Image, UnidentifiedImageError

from melanoma_dist.storage.dicom import is_dicom, open_dicom
from melanoma_dist.storage.image_error import ImageError, too_many_pixels

MAX_PIXELS = 64_000_000
"""No dermoscope makes more; a header that claims more is a decompression bomb."""

MAX_BYTES = 256 * 2**20
"""Largest file; the largest of the challenges has 20 MiB."""

PHOTOGRAPHS = {
    "JPEG": (".jpg", ".jpeg"),
    "PNG": (".png",),
    "TIFF": (".tif", ".tiff"),
    "BMP": (".bmp",),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "JPEG2000": (".jp2", ".j2k"),
    "DICOM": (".dcm", ".dicom"),
}
"""The formats of photographs that others made, by Pillow's names or `DICOM`, with the suffixes of their files."""
SUFFIXES = tuple(suffix for suffixes in PHOTOGRAPHS.values() for suffix in suffixes)
"""The suffixes of files that may hold a photograph, in lower case."""
FORMATS = ", ".join(PHOTOGRAPHS)
"""The formats of photographs, for a message."""

_STORED = ("JPEG", "PNG")  # formats that the program writes itself
_SCAN = b"\xff\xda"
_MAX_SCANS = 200  # a progressive JPEG has about ten; each costs a pass over all pixels and may take a few bytes
_START = 1024  # bytes that tell what a file is
_PAGE = "as servers send in place of a file: get the file again"
_KINDS = (
    ("git_lfs", 0, b"version https://git-lfs", "a Git LFS pointer: fetch the image with `git lfs pull`"),
    ("html", 0, b"<!doctype html", f"an HTML page, {_PAGE}"),
    ("html", 0, b"<html", f"an HTML page, {_PAGE}"),
    ("xml", 0, b"<?xml", f"an XML text, {_PAGE}"),
    ("zip", 0, b"pk\x03\x04", "a ZIP archive: unpack it"),
    ("pdf", 0, b"%pdf", "a PDF: save its picture as JPEG or PNG"),
    ("dicom", 128, b"dicm", "a DICOM file: save its picture as JPEG or PNG"),  # where it is not among the formats
    ("heic", 4, b"ftyp", "an HEIC or AVIF image, or a film: save it as JPEG or PNG"),
)
"""What a file is that holds no image of a known format: code, position and lower-case bytes that tell it, words."""


def open_image(data: bytes, formats: Collection[str] = _STORED) -> Image.Image:
    """Read the header of an image without decoding it.

    Raises ImageError, with what it is instead, unless it has one of the formats, and if decoding would take absurd time
    or memory. Raises OSError or ValueError for a corrupt header.
    """
    pillow = [name for name in formats if name != "DICOM"]
    if "DICOM" in formats and is_dicom(data):
        return open_dicom(data, MAX_PIXELS, lambda frame: open_image(frame, pillow))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            image = Image.open(io.BytesIO(data), formats=pillow)
        except UnidentifiedImageError:
            raise _kind(data, pillow) from None
    if image.width * image.height > MAX_PIXELS:
        raise too_many_pixels(image.width, image.height, MAX_PIXELS)
    tags = getattr(image, "tag_v2", {})
    tile = [tags.get(name, 0) for name in (ExifTags.Base.TileWidth, ExifTags.Base.TileLength)]
    if math.prod(side for side in tile if isinstance(side, int)) > MAX_PIXELS:
        millions = MAX_PIXELS // 1_000_000
        raise ImageError("tiff_tiles", f"a TIFF with tiles of more than {millions} million pixels", millions=millions)
    if image.format in ("JPEG", "MPO") and (scans := data.count(_SCAN)) > _MAX_SCANS:
        raise ImageError("jpeg_scans", f"a JPEG of {scans} scans, more than {_MAX_SCANS}", scans=scans, most=_MAX_SCANS)
    return image


def _kind(data: bytes, formats: Collection[str]) -> ImageError:
    """What a file is whose header Pillow cannot read as one of the formats."""
    if not data:
        return ImageError("empty", "an empty file")
    if not data.strip(b"\0"):
        return ImageError("zeros", "a file of zero bytes alone, as an interrupted copy leaves it")
    for name in formats:
        if (accepts := Image.OPEN[name][1]) and accepts(data[:16]) is True:
            return ImageError("corrupt_header", f"a corrupt {name} image", format=name)
    start = data[:_START].lower()
    if b"annex/objects/" in start:
        pointer = "a git-annex pointer: fetch the image with `git annex get`"
        return ImageError("git_annex", f"not an image, but {pointer}")
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip()
    for code, position, sign, kind in _KINDS:
        if start.startswith(sign, position) or text.startswith(sign, position):
            return ImageError(code, f"not an image, but {kind}")
    return ImageError("not_an_image", "not an image")

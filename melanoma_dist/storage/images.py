"""Open untrusted images: JPEG or PNG whatever the file name says, of a size that can be decoded.

Pillow goes by the bytes and knows some forty formats. One of them (EPS) starts another program, and a file called
``.jpg`` may hold any of them; so all but two are switched off.
"""

from __future__ import annotations

import io
import warnings

from PIL import Image

MAX_PIXELS = 64_000_000
"""No dermoscope makes more; a header that claims more is a decompression bomb."""

MAX_BYTES = 256 * 2**20
"""Largest file; the largest of the challenges has 20 MiB."""

_FORMATS = ("JPEG", "PNG")
_SCAN = b"\xff\xda"
_MAX_SCANS = 200  # a progressive JPEG has about ten; each costs a pass over all pixels and may take a few bytes


def open_image(data: bytes) -> Image.Image:
    """Read the header of an image without decoding it.

    Raises OSError unless it is JPEG or PNG, and ValueError if decoding would take absurd time or memory.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width}x{image.height} pixels, more than {MAX_PIXELS // 1_000_000} million")
    if image.format != "PNG" and data.count(_SCAN) > _MAX_SCANS:
        raise ValueError(f"a JPEG of {data.count(_SCAN)} scans, more than {_MAX_SCANS}")
    return image

"""Opening a picture that somebody else made: JPEG or PNG whatever its name says, of a size that can be decoded.

Pillow goes by the bytes and knows some forty formats, of which one (EPS) is handed to another program; a file called
``.jpg`` may be any of them.
"""

from __future__ import annotations

import io
import warnings

from PIL import Image

MAX_PIXELS = 64_000_000
"""No dermoscope makes more; a header that claims more is a decompression bomb."""

MAX_BYTES = 256 * 2**20
"""Of a file; the largest of the challenges has 20 MiB."""

_FORMATS = ("JPEG", "PNG")
_SCAN = b"\xff\xda"
_MOST_SCANS = 200  # a progressive JPEG has about ten; each is a pass over all pixels, in as few bytes as one likes


def open_picture(data: bytes) -> Image.Image:
    """Read the header of a picture; nothing is decoded yet.

    Raises OSError for what is neither JPEG nor PNG, and ValueError for one that would take absurdly long or much.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
    if image.width * image.height > MAX_PIXELS:
        raise ValueError(f"{image.width}x{image.height} pixels, more than {MAX_PIXELS // 1_000_000} million")
    if image.format != "PNG" and data.count(_SCAN) > _MOST_SCANS:
        raise ValueError(f"a JPEG of {data.count(_SCAN)} scans, more than {_MOST_SCANS}")
    return image

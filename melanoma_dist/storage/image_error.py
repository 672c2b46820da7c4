"""Why a file cannot be used as an image."""

from __future__ import annotations

Value = str | int | float


class ImageError(OSError, ValueError):
    """A file that cannot be used as an image. Its text is English; code and values let others word it."""

    def __init__(self, code: str, text: str, **values: Value) -> None:
        """``code`` never changes. ``values`` are the numbers and names in ``text``."""
        super().__init__(text)
        self.code, self.values = code, values


def too_many_pixels(width: int, height: int, most: int) -> ImageError:
    """The error of an image that is larger than allowed."""
    millions = most // 1_000_000
    text = f"{width}x{height} pixels, more than {millions} million"
    return ImageError("too_many_pixels", text, width=width, height=height, millions=millions)

"""Photographs that belong to no data set: read from files or bytes, and prepared as `data prepare` prepares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from melanoma_dist.data.metadata import parse_code, unknown_codes
from melanoma_dist.data.photo import Photo, describe_failure, prepare_bytes, prepare_image
from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.inference.lesion_masks import Lesion
from melanoma_dist.storage.images import FORMATS, MAX_BYTES
from melanoma_dist.storage.untrusted import read_bytes

Photograph = str | Path | bytes | Image.Image | npt.NDArray[np.uint8]
"""A file, its bytes, or its pixels: an image of Pillow or an array [height, width, 3] of red, green and blue."""
Metadata = Mapping[str, str | float]
"""What is known of a patient: `age` in years, `sex`, `site`. What is absent, blank or `unknown` is unknown."""


@dataclass(frozen=True)
class Photographs:
    """n photographs in memory, as the JPEG bytes that a data set would store."""

    image_ids: tuple[str, ...]
    jpegs: tuple[bytes, ...]
    sizes: tuple[tuple[int, int], ...]
    """Width and height of each, pixels."""
    about: tuple[Metadata, ...] = ()
    """What is known of each patient; empty if nothing is known of any."""
    lesions: tuple[Lesion, ...] = ()
    """Where each shows its lesion; empty unless they were looked for."""
    masks: tuple[bytes, ...] = ()
    """PNG of the mask that a model sees beside each; empty unless it takes masks."""

    @classmethod
    def prepare(
        cls, photographs: Sequence[Photograph], size: int, about: Sequence[Metadata] | None = None
    ) -> Photographs:
        """Decode photographs, turn them upright and reduce their shorter side to ``size`` pixels.

        ``about`` says what is known of each patient: ``{"age": 55, "sex": "female", "site": "lower extremity"}``.
        Raises DataError for the first that cannot be read, and ConfigError for none at all.
        """
        if isinstance(photographs, str | Path | bytes | Image.Image | np.ndarray):
            raise ConfigError("predict: give a list of images, also for one: predict([image]).")
        if not photographs:
            raise ConfigError("predict: name at least one image.")
        names, jpegs, sizes = [], [], []
        for at, photograph in enumerate(photographs):
            name = str(photograph) if isinstance(photograph, str | Path) else f"image {at}"
            pixels, jpeg = _prepare(name, photograph, size)
            names.append(name)
            jpegs.append(jpeg)
            sizes.append(pixels.size)
        if about is not None and len(about) != len(photographs):
            raise ConfigError(f"predict: metadata of {len(about)} patients for {len(photographs)} images.")
        return cls(tuple(names), tuple(jpegs), tuple(sizes), tuple(about or ()))

    @classmethod
    def of(cls, photos: Sequence[Photo], about: Sequence[Metadata] = ()) -> Photographs:
        """Photographs that `prepare_photo` has prepared, at least one."""
        ids = tuple(photo.image_id for photo in photos)
        sizes = tuple((photo.width, photo.height) for photo in photos)
        return cls(ids, tuple(photo.jpeg for photo in photos if photo.jpeg is not None), sizes, tuple(about))

    @property
    def largest(self) -> tuple[int, int]:
        """Largest width and height among them, pixels."""
        width, height = np.max(self.sizes, axis=0)
        return int(width), int(height)

    @property
    def store(self) -> Photographs:
        """Where a loader finds the JPEG bytes of a row."""
        return self

    @property
    def rows(self) -> npt.NDArray[np.int64]:
        """[n] rows of the store."""
        return np.arange(len(self.jpegs), dtype=np.int64)

    def truth(self, labels: tuple[str, ...]) -> npt.NDArray[np.float32]:
        """[n, L] NaN: nothing is known of them."""
        return np.full((len(self.jpegs), len(labels)), np.nan, dtype=np.float32)

    def metadata(self, fields: tuple[str, ...]) -> npt.NDArray[np.float32]:
        """[n, F] codes of `data.metadata`, NaN unknown. Raises ConfigError for a value that a field cannot have."""
        if not self.about:
            return unknown_codes(len(self.jpegs), fields)
        codes = [[parse_code(field, str(each.get(field, ""))) for field in fields] for each in self.about]
        return np.array(codes, dtype=np.float32)

    def png(self, row: int) -> bytes:
        """The mask of a row as PNG bytes."""
        return self.masks[row]

    def jpeg(self, row: int) -> npt.NDArray[np.uint8]:
        """The encoded image of a row, uint8 [bytes]."""
        return np.frombuffer(self.jpegs[row], dtype=np.uint8)

    def image_id(self, row: int) -> str:
        """The file's name, or the position among the bytes that were given."""
        return self.image_ids[row]


def _prepare(name: str, photograph: Photograph, size: int) -> tuple[Image.Image, bytes]:
    try:
        match photograph:
            case Image.Image():
                return prepare_image(photograph, size)
            case np.ndarray():
                return prepare_image(_from_array(photograph), size)
            case bytes():
                return prepare_bytes(photograph, size)
            case _:
                return prepare_bytes(read_bytes(Path(photograph), MAX_BYTES), size)
    except FileNotFoundError as error:
        raise DataError(f"{name}: no such file.") from error
    except Exception as error:  # decoders fail in a dozen ways on corrupt bytes
        reason = describe_failure(error)
        raise DataError(f"{name}: cannot be read as an image ({reason}). Formats: {FORMATS}.") from error


def _from_array(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"an array must be uint8 [height, width, 3], and this is {pixels.dtype} {list(pixels.shape)}")
    return Image.fromarray(pixels)

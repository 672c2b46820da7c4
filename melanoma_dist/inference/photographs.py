"""Photographs that belong to no data set: read from files or bytes, and prepared as `data prepare` prepares them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from melanoma_dist.data.photo import Photo, describe_failure, prepare_bytes
from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.storage.images import FORMATS, MAX_BYTES
from melanoma_dist.storage.untrusted import read_bytes

Photograph = str | Path | bytes


@dataclass(frozen=True)
class Photographs:
    """n photographs in memory, as the JPEG bytes that a data set would store."""

    image_ids: tuple[str, ...]
    jpegs: tuple[bytes, ...]
    largest: tuple[int, int]
    """Largest width and height among them, pixels."""

    @classmethod
    def prepare(cls, photographs: Sequence[Photograph], size: int) -> Photographs:
        """Decode photographs, turn them upright and reduce their shorter side to ``size`` pixels.

        Raises DataError for the first that cannot be read, and ConfigError for none at all.
        """
        if isinstance(photographs, str | Path | bytes):
            raise ConfigError("predict: give a list of images, also for one: predict([image]).")
        if not photographs:
            raise ConfigError("predict: name at least one image.")
        names, jpegs, sizes = [], [], []
        for at, photograph in enumerate(photographs):
            name = f"image {at}" if isinstance(photograph, bytes) else str(photograph)
            try:
                data = photograph if isinstance(photograph, bytes) else read_bytes(Path(photograph), MAX_BYTES)
                pixels, jpeg = prepare_bytes(data, size)
            except FileNotFoundError as error:
                raise DataError(f"{name}: no such file.") from error
            except Exception as error:  # decoders fail in a dozen ways on corrupt bytes
                reason = describe_failure(error)
                raise DataError(f"{name}: cannot be read as an image ({reason}). Formats: {FORMATS}.") from error
            names.append(name)
            jpegs.append(jpeg)
            sizes.append(pixels.size)
        width, height = np.max(sizes, axis=0)
        return cls(tuple(names), tuple(jpegs), (int(width), int(height)))

    @classmethod
    def of(cls, photos: Sequence[Photo]) -> Photographs:
        """Photographs that `prepare_photo` has prepared, at least one."""
        largest = max(photo.width for photo in photos), max(photo.height for photo in photos)
        ids = tuple(photo.image_id for photo in photos)
        return cls(ids, tuple(photo.jpeg for photo in photos if photo.jpeg is not None), largest)

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

    def jpeg(self, row: int) -> npt.NDArray[np.uint8]:
        """The encoded image of a row, uint8 [bytes]."""
        return np.frombuffer(self.jpegs[row], dtype=np.uint8)

    def image_id(self, row: int) -> str:
        """The file's name, or the position among the bytes that were given."""
        return self.image_ids[row]

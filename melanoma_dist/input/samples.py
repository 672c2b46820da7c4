"""What a loader draws from: rows of a data set, each with its JPEG and its labels, or its lesion mask."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Protocol, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from melanoma_dist.data.labels import targets
from melanoma_dist.data.masks import Mask, decode_mask
from melanoma_dist.data.metadata import metadata_codes
from melanoma_dist.errors import DataError
from melanoma_dist.input.region import Windows
from melanoma_dist.input.stream import Floats, Indices
from melanoma_dist.storage.images import open_image


class MaskFiles(Protocol):
    """Maps rows to the masks that a model sees beside their images."""

    def png(self, row: int) -> bytes:
        """The mask of a row as PNG bytes, as large as its image. Raises DataError for corrupt bytes."""


class ImageStore(Protocol):
    """Maps rows to JPEG bytes: the shards of a data set, or photographs in memory."""

    def jpeg(self, row: int) -> npt.NDArray[np.uint8]:
        """The encoded image of a row, uint8 [bytes]. Raises DataError for corrupt bytes."""

    def image_id(self, row: int) -> str:
        """The id of a row's image."""


@dataclass(frozen=True)
class Samples:
    """The images a loader draws from."""

    shards: ImageStore
    rows: Indices  # [n] rows of the manifest
    targets: npt.NDArray[np.float32]  # [n, L] 1, 0 or NaN (unknown)
    largest: tuple[int, int]  # largest width and height among them
    learns_masks: ClassVar[bool] = False  # whether masks are the truth
    corrupt: Indices = field(default_factory=lambda: np.zeros(0, dtype=np.int64))  # samples not to train on
    windows: Windows | None = None  # [n] parts to see; None: whole images
    metadata: Floats | None = None  # [n, F] codes of `data.metadata`, for a model that takes them
    seen_masks: MaskFiles | None = None  # of all rows, for a model that sees masks

    @classmethod
    def of_rows(
        cls, shards: ImageStore, manifest: pd.DataFrame, rows: Indices, labels: tuple[str, ...],
        corrupt: Collection[str] = (), windows: Windows | None = None, fields: tuple[str, ...] = (),
        seen_masks: MaskFiles | None = None,
    ) -> Self:  # fmt: skip
        """Build from ``rows`` of a manifest. ``corrupt`` holds ids of images not to train on.

        ``windows``: of all rows of the manifest; ``fields``: the metadata that the model takes.
        """
        images = manifest.iloc[rows]
        largest = int(images["width"].max()), int(images["height"].max())
        excluded = np.flatnonzero(images["image_id"].isin(list(corrupt)))
        chosen = None if windows is None else windows[rows]
        metadata = metadata_codes(images, fields) if fields else None
        return cls(shards, rows, cls._known(images, labels), largest, excluded, chosen, metadata, seen_masks)

    @property
    def has_masks(self) -> bool:
        """Whether each image comes with a mask as its fourth channel."""
        return self.learns_masks or self.seen_masks is not None

    @classmethod
    def _known(cls, images: pd.DataFrame, labels: tuple[str, ...]) -> npt.NDArray[np.float32]:
        return targets(images, labels)

    def encoded(self, samples: Indices) -> list[npt.NDArray[np.uint8]]:
        """Return the JPEG files of samples 0..n-1, without a copy; for a corrupt sample, the file of another."""
        return [self.shards.jpeg(int(row)) for row in self.rows[self._substitutes[samples]]]

    def windows_of(self, samples: Indices) -> Windows | None:
        """Return the windows of the files that ``encoded`` returns; None for whole images."""
        return None if self.windows is None else self.windows[self._substitutes[samples]]

    def masks(self, samples: Indices) -> list[npt.NDArray[np.uint8]] | None:
        """Return the mask files of samples, if there are any; for a corrupt sample, the mask of another."""
        if self.seen_masks is None:
            return None
        rows = self.rows[self._substitutes[samples]]
        return [np.frombuffer(self.seen_masks.png(int(row)), dtype=np.uint8) for row in rows]

    def truth(self, samples: Indices) -> npt.NDArray[np.float32]:
        """Return targets [b, L] of samples. They are unknown for a corrupt one: it has no weight in the loss."""
        known = self.targets[samples]
        known[np.isin(samples, self.corrupt)] = np.nan
        return known

    def changed(self) -> tuple[str, ...]:
        """Return ids of images whose bytes are not those that were prepared. Reads all images: slow."""
        return self._ids(lambda row: self._reads(row) is not None)

    def undecodable(self) -> tuple[str, ...]:
        """Return ids of images that cannot be decoded. Decodes all images: slow."""
        return self._ids(lambda row: _decodes(self._reads(row)))

    @cached_property
    def _substitutes(self) -> Indices:
        """[n] The sample whose pixels stand for each: itself, or for a corrupt one the next that is not.

        A photograph like the others, and not a blank, so that it does not distort batch statistics.
        """
        substitutes = np.arange(len(self.rows))
        if len(self.corrupt):
            sound = np.setdiff1d(substitutes, self.corrupt)
            if not len(sound):
                raise DataError("Every training image of the fold is corrupt. Copy the data set again.")
            substitutes[self.corrupt] = sound[np.searchsorted(sound, self.corrupt) % len(sound)]
        return substitutes

    def _ids(self, intact: Callable[[int], bool]) -> tuple[str, ...]:
        rows = np.delete(self.rows, self.corrupt)
        return tuple(self.shards.image_id(int(row)) for row in rows if not intact(int(row)))

    def _reads(self, row: int) -> npt.NDArray[np.uint8] | None:
        try:
            return self.shards.jpeg(row)
        except DataError:
            return None


class MaskStore(ImageStore, Protocol):
    """Maps rows to JPEG bytes and to masks."""

    def mask(self, row: int) -> bytes | None:
        """The mask of a row as PNG bytes, or None. Raises DataError for corrupt bytes."""


@dataclass(frozen=True)
class MaskedSamples(Samples):
    """Images with lesion masks. ``targets`` [n, 1] are 1: each mask is known."""

    shards: MaskStore
    learns_masks: ClassVar[bool] = True

    def masks(self, samples: Indices) -> list[npt.NDArray[np.uint8]]:
        """Return the mask files of samples; for a corrupt sample, the mask of another."""
        return [np.frombuffer(self.mask(int(sample)), dtype=np.uint8) for sample in self._substitutes[samples]]

    def mask(self, sample: int) -> bytes:
        """Return the mask of a sample as PNG bytes. Raises DataError for corrupt bytes."""
        mask = self.shards.mask(int(self.rows[sample]))
        if mask is None:
            raise DataError(f"{self.shards.image_id(int(self.rows[sample]))}: has no mask. This is a bug.")
        return mask

    def lesion(self, sample: int) -> Mask:
        """Return the mask of a sample, bool [h, w] of the stored image. Raises DataError for corrupt bytes."""
        return decode_mask(self.mask(sample))

    @classmethod
    def _known(cls, images: pd.DataFrame, labels: tuple[str, ...]) -> npt.NDArray[np.float32]:
        return np.ones((len(images), 1), dtype=np.float32)

    def _reads(self, row: int) -> npt.NDArray[np.uint8] | None:
        try:
            self.shards.mask(row)
        except DataError:
            return None
        return super()._reads(row)


def _decodes(jpeg: npt.NDArray[np.uint8] | None) -> bool:
    if jpeg is None:
        return False
    try:
        with open_image(jpeg.tobytes()) as picture:
            picture.load()
    except (OSError, ValueError, SyntaxError):
        return False
    return True

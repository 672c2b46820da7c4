"""What a run sees of each image, as the data set's side table of lesions says: lesion or whole image, and the mask."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from melanoma_dist.artifacts.lesion_table import BOX, LesionTable, encode, read_lesions
from melanoma_dist.config.region import RegionConfig
from melanoma_dist.config.run import RunConfig
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.errors import DataError
from melanoma_dist.input.region import Windows, windows_around
from melanoma_dist.input.samples import MaskFiles

LOW_QUALITY = 0.7
"""Quality of a mask below which it is not trusted: the image is seen whole, and its mask as if it were empty.

Below it lay 10 % of the masks of a small U-Net on ISIC 2018; two thirds of them had a Jaccard index below 0.65.
"""


@dataclass(frozen=True)
class Trust:
    """Which masks of n images are trusted."""

    undetected: npt.NDArray[np.bool_]
    """[n] images in which no lesion was detected."""
    doubtful: npt.NDArray[np.bool_]
    """[n] images whose lesion was detected, by a mask that is doubtful."""

    @classmethod
    def of(cls, rows: pd.DataFrame) -> Trust:
        """Judge the rows of a side table."""
        undetected = ~rows["detected"].to_numpy(dtype=bool)
        return cls(undetected, ~undetected & (rows["quality"] < LOW_QUALITY).to_numpy())

    @property
    def missing(self) -> npt.NDArray[np.bool_]:
        """[n] images without a trusted mask."""
        return self.undetected | self.doubtful


@dataclass(frozen=True)
class Regions:
    """What a run sees of all images of a data set."""

    config: RegionConfig
    trust: Trust
    """Of each row of the manifest, like what follows."""
    windows: Windows | None
    """The part of the image; None: all of it."""
    masks: MaskFiles | None
    """None for a model without masks."""

    def sentence(self, rows: npt.NDArray[Any]) -> str:
        """Say what is seen of some images, and why. ``rows``: of the manifest, numbers or a mask."""
        undetected, doubtful = (
            int(np.count_nonzero(each[rows])) for each in (self.trust.undetected, self.trust.doubtful)
        )
        images = len(self.trust.undetected[rows])
        phrase, otherwise = {
            ("lesion", "none"): ("by their lesion's box", "whole"),
            ("whole", "channel"): ("with their lesion's mask", "with an empty mask"),
            ("lesion", "channel"): ("by their lesion's box with its mask", "whole with an empty mask"),
        }[self.config.region, self.config.mask]
        return (
            f"{images - undetected - doubtful} of {images} images are seen {phrase}, {undetected} {otherwise} "
            f"because no lesion was detected, {doubtful} {otherwise} because their mask is doubtful (quality below "
            f"{LOW_QUALITY})."
        )


@dataclass(frozen=True)
class TrustedMasks:
    """The masks of a side table; an empty one for images without a trusted mask."""

    table: LesionTable
    missing: npt.NDArray[np.bool_]
    """[rows] images without a trusted mask."""
    sizes: npt.NDArray[np.int64]
    """[rows, 2] height and width of the images, pixels."""

    def png(self, row: int) -> bytes:
        """The mask of a row as PNG bytes. Raises DataError for a file that is missing or changed."""
        return empty_png(*self.sizes[row].tolist()) if self.missing[row] else self.table.png(row)


@cache
def empty_png(height: int, width: int) -> bytes:
    """A mask without a lesion."""
    return encode(np.zeros((height, width), dtype=bool))


def load_regions(config: RunConfig, dataset: Dataset, lesions: str | None = None) -> Regions | None:
    """Read what a run sees of a data set's images; None for a run that sees whole images without masks.

    ``lesions``: fingerprint of the table that the run was trained with, None before a training. Raises DataError for a
    table that is missing, corrupt, of another data set, or another one than that.
    """
    section = config.region
    if not section.needs_lesions or section.lesions is None:
        return None
    table = read_lesions(Path(section.lesions), dataset)
    if lesions not in (None, table.record.fingerprint):
        raise DataError(
            f"{table.folder}: has fingerprint {table.record.fingerprint[:12]}, but the run was trained with the table "
            f"of {(lesions or '')[:12]}. Bring that table back."
        )
    sizes, trust = dataset.manifest[["height", "width"]].to_numpy(dtype=np.int64), Trust.of(table.rows)
    windows = windows_of(table.rows, sizes, trust, section.region_margin) if section.region == "lesion" else None
    masks = TrustedMasks(table, trust.missing, sizes) if section.mask == "channel" else None
    return Regions(section, trust, windows, masks)


def windows_of(rows: pd.DataFrame, sizes: npt.NDArray[np.int64], trust: Trust, margin: float) -> Windows:
    """The windows around the lesions in the rows of a side table; whole images without a trusted mask.

    ``sizes`` [n, 2]: height and width of the images, pixels.
    """
    boxes = np.where(trust.missing[:, None], [0.0, 0.0, 1.0, 1.0], rows[list(BOX)].to_numpy(dtype=np.float64))
    return windows_around(boxes, sizes.astype(np.float64), margin)

"""The part of each image that a run sees: its lesion, as the data set's side table of lesions says, or all of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from melanoma_dist.artifacts.lesion_table import BOX, read_lesions
from melanoma_dist.config.run import RunConfig
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.errors import DataError
from melanoma_dist.input.region import Windows, windows_around

LOW_QUALITY = 0.7
"""Quality of a mask below which its box is not trusted, and the image is seen whole.

Below it lay 10 % of the masks of a small U-Net on ISIC 2018; two thirds of them had a Jaccard index below 0.65.
"""


@dataclass(frozen=True)
class Regions:
    """What a run sees of all images of a data set."""

    windows: Windows
    """Of each row of the manifest."""
    undetected: npt.NDArray[np.bool_]
    """[rows] images seen whole, because no lesion was detected in them."""
    doubtful: npt.NDArray[np.bool_]
    """[rows] images seen whole, because the mask of their lesion is doubtful."""

    def sentence(self, rows: npt.NDArray[Any]) -> str:
        """Say how many of some images are seen whole, and why. ``rows``: of the manifest, numbers or a mask."""
        undetected, doubtful = (int(np.count_nonzero(each[rows])) for each in (self.undetected, self.doubtful))
        images = len(self.undetected[rows])
        return (
            f"{images - undetected - doubtful} of {images} images are seen by their lesion's box, {undetected} whole "
            f"because no lesion was detected, {doubtful} whole because their mask is doubtful (quality below "
            f"{LOW_QUALITY})."
        )


def load_regions(config: RunConfig, dataset: Dataset, lesions: str | None = None) -> Regions | None:
    """Read what a run sees of a data set's images; None for whole images.

    ``lesions``: fingerprint of the table that the run was trained with, None before a training. Raises DataError for a
    table that is missing, corrupt, of another data set, or another one than that.
    """
    if config.region.region == "whole" or config.region.lesions is None:
        return None
    table = read_lesions(Path(config.region.lesions), dataset)
    if lesions not in (None, table.record.fingerprint):
        raise DataError(
            f"{table.folder}: has fingerprint {table.record.fingerprint[:12]}, but the run was trained with the table "
            f"of {(lesions or '')[:12]}. Bring that table back."
        )
    return regions_of(table.rows, dataset.manifest, config.region.region_margin)


def regions_of(rows: pd.DataFrame, manifest: pd.DataFrame, margin: float) -> Regions:
    """What is seen of images, for the rows of their side table and of their manifest."""
    undetected = ~rows["detected"].to_numpy(dtype=bool)
    doubtful = ~undetected & (rows["quality"] < LOW_QUALITY).to_numpy()
    whole = undetected | doubtful
    boxes = np.where(whole[:, None], [0.0, 0.0, 1.0, 1.0], rows[list(BOX)].to_numpy(dtype=np.float64))
    around = windows_around(boxes, manifest[["height", "width"]].to_numpy(), margin)
    return Regions(around, undetected, doubtful)

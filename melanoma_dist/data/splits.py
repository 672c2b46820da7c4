"""The official splits that a manifest lists: which images they have, and which of them are holdouts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from melanoma_dist.data.sources.registry import OFFICIAL_HOLDOUTS


def listed_in(manifest: pd.DataFrame, split: str) -> npt.NDArray[np.bool_]:
    """Rows that an official split lists, bool [rows].

    Not the same as ``split == name``: images of 2018's test are in 2019's test too, and ``split`` names only one.
    """
    return np.array([split in listed.split("+") for listed in manifest["listed"]], dtype=bool)


def official_holdouts(manifest: pd.DataFrame) -> frozenset[str]:
    """The holdouts that tables of collections name: those of the known sources, and those that list an image."""
    listed = {name for names in manifest["listed"].unique() for name in names.split("+")}
    return OFFICIAL_HOLDOUTS | {name for name in listed if not name.endswith("-train")}

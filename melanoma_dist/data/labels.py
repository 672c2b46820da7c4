"""What a lesion can be called, and which of these names a training predicts.

Every label is its own yes-or-no question with three answers: 1, 0 and NaN for unknown. Unknown is not rare: 2018 says
AKIEC where 2019 tells actinic keratosis (AK) from squamous cell carcinoma (SCC).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from melanoma_dist.errors import ConfigError, DataError, nearest

DIAGNOSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC")
"""The eight diagnoses of 2019: melanoma, nevus, basal cell carcinoma, actinic keratosis, benign keratosis,
dermatofibroma, vascular lesion, squamous cell carcinoma."""

LABEL_COLUMNS = (*DIAGNOSES, "AKIEC")
"""The label columns of a manifest. AKIEC, the class of 2018, means AK or SCC, and may be known alone."""

TRUE = "_true"
"""Suffix of the columns that hold the truth of a label, beside the column of its probability."""
LABEL_SETS: dict[str, tuple[str, ...]] = {
    "isic2019": DIAGNOSES,
    "isic2018": ("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"),
    "isic2017": ("MEL", "BKL"),
    "melanoma": ("MEL",),
}
"""The outputs a model can have, by the name ``--labels`` takes."""


def targets(manifest: pd.DataFrame, labels: tuple[str, ...]) -> npt.NDArray[np.float32]:
    """The labels of every row as float32 [rows, labels]: 1, 0, or NaN where unknown."""
    return manifest[list(labels)].to_numpy(dtype=np.float32)


def label_counts(manifest: pd.DataFrame, labels: tuple[str, ...] = LABEL_COLUMNS) -> pd.DataFrame:
    """How many images are ``positive``, ``negative`` and ``unknown``, one row per label."""
    values = targets(manifest, labels)
    counts = {"positive": values == 1, "negative": values == 0, "unknown": np.isnan(values)}
    return pd.DataFrame({name: hits.sum(axis=0) for name, hits in counts.items()}, index=list(labels))


def supported_label_sets(manifest: pd.DataFrame) -> list[str]:
    """The names of the label sets of which every label has a known positive and a known negative image."""
    return [name for name, labels in LABEL_SETS.items() if not _unlearnable(manifest, labels)]


def check_label_set(manifest: pd.DataFrame, name: str) -> None:
    """Refuse a label set that ``manifest`` cannot teach.

    Raises ConfigError for a name that does not exist, and DataError when a label of the set has no image known to have
    it or none known not to.
    """
    if name not in LABEL_SETS:
        known = ", ".join(LABEL_SETS)
        raise ConfigError.of(
            "labels", name, f"must be one of {known}", f"Nearest: {nearest(name, LABEL_SETS) or known}."
        )
    missing = _unlearnable(manifest, LABEL_SETS[name])
    if not missing:
        return
    counts = label_counts(manifest, missing)
    details = "; ".join(f"{label} {row.positive} yes / {row.negative} no" for label, row in counts.iterrows())
    supported = ", ".join(supported_label_sets(manifest)) or "none"
    raise DataError(
        f"--labels {name}: each label needs at least one image known to have it and one known not to, "
        f"but among these {len(manifest)} images there are: {details}. "
        f"Label sets this data supports: {supported}. Choose one of them, or prepare more years."
    )


def _unlearnable(manifest: pd.DataFrame, labels: tuple[str, ...]) -> tuple[str, ...]:
    counts = label_counts(manifest, labels)
    return tuple(counts.index[(counts["positive"] == 0) | (counts["negative"] == 0)])

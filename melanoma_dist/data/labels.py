"""The labels of images, and which label sets a data set supports.

Every label is independent, with three values: 1, 0 and NaN for unknown. Unknown is not rare: 2018 has AKIEC where 2019
distinguishes actinic keratosis (AK) from squamous cell carcinoma (SCC).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from melanoma_dist.config.label_sets import DIAGNOSES as DIAGNOSES
from melanoma_dist.config.label_sets import HEADLINE
from melanoma_dist.config.label_sets import LABEL_SETS as LABEL_SETS
from melanoma_dist.errors import ConfigError, DataError, nearest

LABEL_COLUMNS = (*DIAGNOSES, "AKIEC")
"""The label columns of a manifest. AKIEC, a class of 2018, means AK or SCC and may be known where both are not."""

TRUE = "_true"
"""Suffix of the columns that hold the truth of a label, beside the column of its probability."""


def targets(manifest: pd.DataFrame, labels: tuple[str, ...]) -> npt.NDArray[np.float32]:
    """The labels of every row, float32 [rows, labels]: 1, 0, or NaN for unknown."""
    return manifest[list(labels)].to_numpy(dtype=np.float32)


def known_labels(row: pd.Series[Any]) -> str:
    """The labels that an image of the manifest has, for people."""
    return " ".join(label for label in LABEL_COLUMNS if row[label] == 1) or "no known label"


def label_counts(manifest: pd.DataFrame, labels: tuple[str, ...] = LABEL_COLUMNS) -> pd.DataFrame:
    """The number of ``positive``, ``negative`` and ``unknown`` images, one row per label."""
    values = targets(manifest, labels)
    counts = {"positive": values == 1, "negative": values == 0, "unknown": np.isnan(values)}
    return pd.DataFrame({name: hits.sum(axis=0) for name, hits in counts.items()}, index=list(labels))


def has_two_diagnoses(table: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Rows with more than one diagnosis, bool [rows]."""
    diagnosed = targets(table, DIAGNOSES) == 1
    # AKIEC beside one of the six others contradicts it, even where AK and SCC are unknown.
    others = diagnosed & ~np.isin(DIAGNOSES, ("AK", "SCC"))
    wrong: npt.NDArray[np.bool_] = (diagnosed.sum(axis=1) > 1) | (others.any(axis=1) & (table["AKIEC"] == 1).to_numpy())
    return wrong


def contradicts_akiec(table: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Rows where AKIEC is not what AK and SCC say, bool [rows]. Unknown contradicts nothing."""
    narrow, wide = targets(table, ("AK", "SCC")), table["AKIEC"].to_numpy()
    wrong: npt.NDArray[np.bool_] = ((narrow == 1).any(axis=1) & (wide == 0)) | ((narrow == 0).all(axis=1) & (wide == 1))
    return wrong


def supported_label_sets(manifest: pd.DataFrame) -> list[str]:
    """The label sets whose labels all have at least one positive and one negative image."""
    return [name for name, labels in LABEL_SETS.items() if not _unlearnable(manifest, labels)]


def check_label_set(manifest: pd.DataFrame, name: str) -> None:
    """Refuse a label set that cannot be learned from ``manifest``.

    Raises ConfigError for an unknown name or a set without melanoma, and DataError if a label of the set has no
    positive or no negative image.
    """
    if name not in LABEL_SETS:
        known = ", ".join(LABEL_SETS)
        raise ConfigError.of(
            "labels", name, f"must be one of {known}", f"Nearest: {nearest(name, LABEL_SETS) or known}."
        )
    if HEADLINE not in LABEL_SETS[name]:
        raise ConfigError.of(
            "labels", name, f"has no {HEADLINE}, whose AUC chooses epochs", f"Add {HEADLINE} to the set."
        )
    missing = _unlearnable(manifest, LABEL_SETS[name])
    if not missing:
        return
    counts = label_counts(manifest, missing)
    details = "; ".join(f"{label} {row.positive} yes / {row.negative} no" for label, row in counts.iterrows())
    supported = ", ".join(supported_label_sets(manifest)) or "none"
    raise DataError(
        f"--labels {name}: each label needs at least one positive and one negative image, "
        f"but among these {len(manifest)} images there are: {details}. "
        f"Label sets this data supports: {supported}. Choose one of them, or prepare more images."
    )


def _unlearnable(manifest: pd.DataFrame, labels: tuple[str, ...]) -> tuple[str, ...]:
    counts = label_counts(manifest, labels)
    return tuple(counts.index[(counts["positive"] == 0) | (counts["negative"] == 0)])

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
from melanoma_dist.config.label_sets import LABEL_NAME, label_set
from melanoma_dist.config.label_sets import LABEL_SETS as LABEL_SETS
from melanoma_dist.errors import DataError

LABEL_COLUMNS = (*DIAGNOSES, "AKIEC")
"""The label columns of every manifest. AKIEC, a class of 2018, means AK or SCC and may be known where both are not."""

TRUE = "_true"
"""Suffix of the columns that hold the truth of a label, beside the column of its probability."""


def further_labels(table: pd.DataFrame) -> tuple[str, ...]:
    """The labels that collections of a user name beside `LABEL_COLUMNS`: all other columns in capitals, sorted."""
    return tuple(sorted(name for name in map(str, table) if LABEL_NAME.fullmatch(name) and name not in LABEL_COLUMNS))


def label_columns(table: pd.DataFrame) -> tuple[str, ...]:
    """All label columns of a manifest."""
    return (*LABEL_COLUMNS, *further_labels(table))


def targets(manifest: pd.DataFrame, labels: tuple[str, ...]) -> npt.NDArray[np.float32]:
    """The labels of every row, float32 [rows, labels]: 1, 0, or NaN for unknown, as labels are without a column."""
    return manifest.reindex(columns=list(labels)).to_numpy(dtype=np.float32)


def known_labels(row: pd.Series[Any]) -> str:
    """The labels that an image of the manifest has, for people."""
    names = [str(name) for name in row.index if LABEL_NAME.fullmatch(str(name))]
    return " ".join(name for name in names if row[name] == 1) or "no known label"


def label_counts(manifest: pd.DataFrame, labels: tuple[str, ...] = ()) -> pd.DataFrame:
    """The number of ``positive``, ``negative`` and ``unknown`` images, one row per label, by default of all."""
    labels = labels or label_columns(manifest)
    values = targets(manifest, labels)
    counts = {"positive": values == 1, "negative": values == 0, "unknown": np.isnan(values)}
    return pd.DataFrame({name: hits.sum(axis=0) for name, hits in counts.items()}, index=list(labels))


def has_two_diagnoses(table: pd.DataFrame) -> npt.NDArray[np.bool_]:
    """Rows with more than one diagnosis, bool [rows]."""
    diagnoses = (*DIAGNOSES, *further_labels(table))
    diagnosed = targets(table, diagnoses) == 1
    # AKIEC beside one of the six others contradicts it, even where AK and SCC are unknown.
    others = diagnosed & ~np.isin(diagnoses, ("AK", "SCC"))
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


def check_label_set(manifest: pd.DataFrame, name: str, headline: str | None = None) -> None:
    """Refuse a label set that cannot be learned from ``manifest``.

    Raises ConfigError for a name that `label_set` refuses, and DataError if a label of the set has no positive or no
    negative image.
    """
    labels = label_set(name, headline)
    if unknown := [label for label in labels if label not in manifest]:
        raise DataError(
            f"--labels {name}: {', '.join(unknown)}: this data set has no such label. "
            f"Its labels: {', '.join(label_columns(manifest))}."
        )
    missing = _unlearnable(manifest, labels)
    if not missing:
        return
    counts = label_counts(manifest, missing)
    details = "; ".join(f"{label} {row.positive} yes / {row.negative} no" for label, row in counts.iterrows())
    supported, learnable = supported_label_sets(manifest), _learnable(manifest)
    if learnable and not any(set(LABEL_SETS[each]) >= set(learnable) for each in supported):
        supported.append(",".join(learnable))
    raise DataError(
        f"--labels {name}: each label needs at least one positive and one negative image, "
        f"but among these {len(manifest)} images there are: {details}. "
        f"Label sets this data supports: {', '.join(supported) or 'none'}. Choose one of them, or prepare more images."
    )


def _learnable(manifest: pd.DataFrame) -> list[str]:
    """The labels that have positive and negative images; AKIEC only where neither AK nor SCC has."""
    labels = label_columns(manifest)
    learnable = [label for label in labels if label not in _unlearnable(manifest, labels)]
    return [label for label in learnable if label != "AKIEC" or not {"AK", "SCC"} & set(learnable)]


def _unlearnable(manifest: pd.DataFrame, labels: tuple[str, ...]) -> tuple[str, ...]:
    counts = label_counts(manifest, labels)
    return tuple(counts.index[(counts["positive"] == 0) | (counts["negative"] == 0)])

"""Merges the collections into one table: one row per image, with everything that any of them knows about it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from melanoma_dist.data.groups import TRAIN
from melanoma_dist.data.labels import label_columns
from melanoma_dist.data.sources.source import Collection
from melanoma_dist.errors import DataError

Conflicts = Literal["refuse", "newest", "unknown"]
"""What to do if two collections contradict each other about a label: refuse, take the newer one's, or mark it
unknown."""

_SHOWN = 20


def merge_collections(collections: Sequence[Collection], conflicts: Conflicts = "refuse") -> pd.DataFrame:
    """One row per image id in any table, sorted.

    Columns: the labels, selected, years, listed, split, lesion_id, sex, site, age, and patient_id if any is known.

    A known label beats an unknown one: 2019 has AK or SCC where 2018 has AKIEC. A holdout beats the training set.
    Collections that the request does not select contribute only lesions, patients and official splits; images that
    only they name are not ``selected``.
    Raises DataError if selected collections contradict each other and ``conflicts`` is "refuse".
    """
    known = _records(collections)
    records = _records([each for each in collections if each.selected])
    every, same = known.groupby("image_id", sort=True), records.groupby("image_id", sort=True)
    # An official split is named "2017-test" and the like; the training set of a collection is "2017-train".
    official = known["split"].mask(known["split"] == TRAIN, known["collection"] + "-train")
    listed = official.groupby(known["image_id"]).agg(list)
    merged = _labels(records, conflicts).reindex(listed.index)
    names = same["collection"].agg(lambda values: "+".join(dict.fromkeys(values)))
    merged["selected"] = names.reindex(listed.index).notna()
    merged["years"] = names.reindex(listed.index).fillna("")
    merged["listed"] = listed.map("+".join)
    # The first holdout that lists an image, or the training pool.
    merged["split"] = [next((name for name in names if not name.endswith("-train")), TRAIN) for names in listed]
    merged["lesion_id"] = every["lesion_id"].first().astype("str")
    for column in ("sex", "site"):
        merged[column] = same[column].first().astype("str").reindex(listed.index)
    merged["age"] = same["age"].first().astype("float32").reindex(listed.index)
    # Only where patients are known: the manifests and fingerprints of other data sets stay as they were.
    if known["patient_id"].notna().any():
        merged["patient_id"] = every["patient_id"].first().astype("str")
    return merged.reset_index()


def known_values(collections: Sequence[Collection], column: str) -> pd.DataFrame:
    """``image_id`` and ``column`` of all collections; an image may have several values."""
    return pd.concat([each.records[["image_id", column]] for each in collections], ignore_index=True)


def merge_files(collections: Sequence[Collection]) -> dict[str, tuple[Path, ...]]:
    """The image files of the selected collections by image id, earlier collections first.

    A file in a folder of no collection counts only if no collection has one.
    """
    merged: dict[str, tuple[Path, ...]] = {}
    for each in collections:
        for image_id, paths in each.files.items() if each.selected else ():
            merged[image_id] = (*merged.get(image_id, ()), *paths)
    for each in collections:
        for image_id, paths in each.elsewhere.items() if each.selected else ():
            merged.setdefault(image_id, paths)
    return merged


def merge_masks(collections: Sequence[Collection]) -> dict[str, Path]:
    """One lesion mask by image id, from the earliest selected collection that has one."""
    return {name: path for each in reversed(collections) if each.selected for name, path in each.masks.items()}


def _records(collections: Sequence[Collection]) -> pd.DataFrame:
    return pd.concat([each.records.assign(collection=each.name) for each in collections], ignore_index=True)


def _labels(records: pd.DataFrame, conflicts: Conflicts) -> pd.DataFrame:
    """The labels by image id, float32 [images, labels]. NaN, unknown, contradicts nothing."""
    columns = list(label_columns(records))
    same = records.groupby("image_id", sort=True)[columns]
    merged = same.max()
    differ = merged > same.min()
    wrong = differ.index[differ.any(axis=1)]
    if len(wrong) and conflicts == "refuse":
        raise DataError(_contradictions(records, wrong))
    if len(wrong) and conflicts == "newest":
        newest = records.drop_duplicates("image_id", keep="last").set_index("image_id")  # collections come by year
        merged.loc[wrong] = newest.loc[wrong, columns]
    return merged.mask(differ, np.nan).astype("float32") if conflicts == "unknown" else merged.astype("float32")


def _contradictions(records: pd.DataFrame, wrong: pd.Index[str]) -> str:
    lines, columns = [], label_columns(records)
    for image_id, rows in records[records["image_id"].isin(wrong[:_SHOWN])].groupby("image_id"):
        labels = [
            f"{row['collection']} says {' '.join(label for label in columns if row[label] == 1) or 'none'}"
            for _, row in rows.iterrows()
        ]
        lines.append(f"{image_id}: {', '.join(labels)}")
    more = [f"... and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
    listing = "\n  ".join(lines + more)
    return (
        f"{len(wrong)} images have labels that contradict each other between the years:\n  {listing}\n"
        "Correct a table, or choose a rule: --conflicts newest takes the newer year's label, --conflicts unknown "
        "marks it unknown."
    )

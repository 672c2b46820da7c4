"""Three years, one table: what they say about the same image is combined."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from melanoma_dist.data.groups import TRAIN
from melanoma_dist.data.isic import Year
from melanoma_dist.data.labels import LABEL_COLUMNS
from melanoma_dist.errors import DataError

Conflicts = Literal["refuse", "newest", "unknown"]
"""What to do where two years contradict each other about an image: refuse, believe the newer, or call it unknown."""

_SHOWN = 20


def merge_years(years: list[Year], conflicts: Conflicts = "refuse") -> pd.DataFrame:
    """One row per image id that any table names, sorted.

    Columns: the labels, years, listed, split, lesion_id, age, sex, site, wanted.

    A known label beats an unknown one: 2019 tells AK from SCC where 2018 says AKIEC. A holdout beats the training set.
    Of a year that was not asked for, only its lesions and official splits are used; images that it alone names are not
    ``wanted``.
    Raises DataError when two wanted years contradict each other and ``conflicts`` is "refuse".
    """
    known = pd.concat([year.records for year in years], ignore_index=True)
    records = pd.concat([year.records for year in years if year.wanted], ignore_index=True)
    every, same = known.groupby("image_id", sort=True), records.groupby("image_id", sort=True)
    listed = _official_name(known).groupby(known["image_id"]).agg(list)
    merged = _labels(records, conflicts).reindex(listed.index)
    names = same["year"].agg(lambda values: "+".join(str(year) for year in sorted(set(values))))
    merged["wanted"] = names.reindex(listed.index).notna()
    merged["years"] = names.reindex(listed.index).fillna("")
    merged["listed"] = listed.map("+".join)
    merged["split"] = listed.map(_split)
    merged["lesion_id"] = every["lesion_id"].first().astype("str")
    for column in ("sex", "site"):
        merged[column] = same[column].first().astype("str").reindex(listed.index)
    merged["age"] = same["age"].first().astype("float32").reindex(listed.index)
    return merged.reset_index()


def lesions(years: list[Year]) -> pd.DataFrame:
    """``image_id, lesion_id`` as every year on the disk says; an image may have several."""
    return pd.concat([year.records[["image_id", "lesion_id"]] for year in years], ignore_index=True)


def merge_files(years: list[Year]) -> dict[str, tuple[Path, ...]]:
    """Every image file on the disk by image id, of earlier years first."""
    merged: dict[str, tuple[Path, ...]] = {}
    for year in years:
        for image_id, paths in year.files.items() if year.wanted else ():
            merged[image_id] = (*merged.get(image_id, ()), *paths)
    return merged


def merge_masks(years: list[Year]) -> dict[str, Path]:
    """One lesion mask by image id, of the earliest year that has one."""
    return {image_id: path for year in reversed(years) if year.wanted for image_id, path in year.masks.items()}


def _official_name(records: pd.DataFrame) -> pd.Series[str]:
    """ "2017-test" and the like; the training set of a year is "2017-train"."""
    train = records["split"] == TRAIN
    return records["split"].mask(train, records["year"].astype(str) + "-train")


def _split(listed: list[str]) -> str:
    """The first holdout that lists an image, or the training pool."""
    return next((name for name in listed if not name.endswith("-train")), TRAIN)


def _labels(records: pd.DataFrame, conflicts: Conflicts) -> pd.DataFrame:
    """The labels by image id, float32 [images, labels]; NaN, unknown, contradicts nothing."""
    columns = list(LABEL_COLUMNS)
    same = records.groupby("image_id", sort=True)[columns]
    merged = same.max()
    differ = merged > same.min()
    wrong = differ.index[differ.any(axis=1)]
    if len(wrong) and conflicts == "refuse":
        raise DataError(_contradictions(records, wrong))
    if len(wrong) and conflicts == "newest":
        newest = records.sort_values("year").drop_duplicates("image_id", keep="last").set_index("image_id")
        merged.loc[wrong] = newest.loc[wrong, columns]
    return merged.mask(differ, np.nan).astype("float32") if conflicts == "unknown" else merged.astype("float32")


def _contradictions(records: pd.DataFrame, wrong: pd.Index[str]) -> str:
    lines = []
    for image_id, rows in records[records["image_id"].isin(wrong[:_SHOWN])].groupby("image_id"):
        said = [
            f"{row['year']} says {' '.join(label for label in LABEL_COLUMNS if row[label] == 1) or 'none'}"
            for _, row in rows.iterrows()
        ]
        lines.append(f"{image_id}: {', '.join(said)}")
    more = [f"... and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
    listing = "\n  ".join(lines + more)
    return (
        f"{len(wrong)} images have labels that contradict each other between the years:\n  {listing}\n"
        "Correct a table, or choose a rule: --conflicts newest believes the newer year, --conflicts unknown neither."
    )

"""Three years, one table: what they say about the same image is combined, and what belongs together is grouped."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from melanoma_dist.data.isic import Year
from melanoma_dist.data.labels import LABEL_COLUMNS
from melanoma_dist.errors import DataError

TRAIN = "train"
_SHOWN = 20


def merge_years(years: list[Year]) -> pd.DataFrame:
    """One row per image id, sorted: its labels, years, listed, split, lesion_id, age, sex, site.

    A known label beats an unknown one: 2019 tells AK from SCC where 2018 says AKIEC. A holdout beats the training set.
    Raises DataError when two years contradict each other.
    """
    records = pd.concat([year.records for year in years], ignore_index=True)
    _refuse_contradictions(records)
    same = records.groupby("image_id", sort=True)
    merged = same[list(LABEL_COLUMNS)].max().astype("float32")
    merged["years"] = same["year"].agg(lambda values: "+".join(str(year) for year in sorted(set(values))))
    listed = _official_name(records).groupby(records["image_id"]).agg(list)
    merged["listed"] = listed.map("+".join)
    merged["split"] = listed.map(_split)
    for column in ("lesion_id", "sex", "site"):
        merged[column] = same[column].first().astype("str")
    merged["age"] = same["age"].first().astype("float32")
    return merged.reset_index()


def merge_files(years: list[Year]) -> dict[str, tuple[Path, ...]]:
    """Every image file on the disk by image id, of earlier years first."""
    merged: dict[str, tuple[Path, ...]] = {}
    for year in years:
        for image_id, paths in year.files.items():
            merged[image_id] = (*merged.get(image_id, ()), *paths)
    return merged


def merge_masks(years: list[Year]) -> dict[str, Path]:
    """One lesion mask by image id, of the earliest year that has one."""
    return {image_id: path for year in reversed(years) for image_id, path in year.masks.items()}


def join_groups(table: pd.DataFrame, *keys: str) -> pd.Series[str]:
    """The group of each row: rows that share a value of any key are together, and so is whom they share others with.

    A group is named by the first of its lesion ids, or, where it has none, by the first of its image ids.
    """
    group = table["image_id"]
    while True:
        before = group
        for key in keys:
            together = group.groupby(table[key]).transform("min")  # NaN where the key is absent
            group = together.where(together.notna(), group)
            group = group.groupby(before).transform("min")
        if group.equals(before):
            break
    lesion = table["lesion_id"].groupby(group).transform("min")
    return lesion.where(lesion.notna(), group).rename("group")


def exclude_neighbours(table: pd.DataFrame) -> pd.Series[str]:
    """The split of each row, where a training image whose group reaches into a holdout becomes "excluded: ..."."""
    holdouts = (
        table[table["split"] != TRAIN].groupby("group")["split"].agg(lambda splits: ", ".join(sorted(set(splits))))
    )
    if holdouts.empty:
        return table["split"]
    reached = table["group"].map(holdouts)
    excluded = (table["split"] == TRAIN) & reached.notna()
    return table["split"].mask(excluded, "excluded: lesion or copy in " + reached)


def _official_name(records: pd.DataFrame) -> pd.Series[str]:
    """ "2017-test" and the like; the training set of a year is "2017-train"."""
    train = records["split"] == TRAIN
    return records["split"].mask(train, records["year"].astype(str) + "-train")


def _split(listed: list[str]) -> str:
    """The first holdout that lists an image, or the training pool."""
    return next((name for name in listed if not name.endswith("-train")), TRAIN)


def _refuse_contradictions(records: pd.DataFrame) -> None:
    labels = list(LABEL_COLUMNS)
    same = records.groupby("image_id", sort=True)[labels]
    differ = same.max() > same.min()  # NaN, unknown, contradicts nothing
    wrong = differ.index[differ.any(axis=1)]
    if wrong.empty:
        return
    lines = []
    for image_id, rows in records[records["image_id"].isin(wrong[:_SHOWN])].groupby("image_id"):
        said = [
            f"{row['year']} says {' '.join(label for label in labels if row[label] == 1) or 'none'}"
            for _, row in rows.iterrows()
        ]
        lines.append(f"{image_id}: {', '.join(said)}")
    more = [f"... and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
    listing = "\n  ".join(lines + more)
    raise DataError(
        f"{len(wrong)} images have labels that contradict each other between the years:\n  {listing}\n"
        "Correct a table, get the tables again from the ISIC challenge site, or prepare one of the years alone."
    )

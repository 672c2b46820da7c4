"""Counts of a data set as small tables, for the terminal and for the page of ``data audit``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd

from melanoma_dist.data.groups import BYTES, LESION, LISTED, NEAR, PATIENT
from melanoma_dist.data.labels import label_columns, label_counts, targets
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.data.masks import decode_mask
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.data.tables import VOCABULARY
from melanoma_dist.errors import DataError

_UNKNOWN = "unknown"
_SIZES_SHOWN = 12
_AGES = (0, 20, 30, 40, 50, 60, 70, 80, 200)  # years: where the bands begin, and the end


class CountTable(NamedTuple):
    """A table whose first column is text; the other columns are numbers."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[Sequence[object]]


def years(images: pd.DataFrame, missing: pd.DataFrame) -> CountTable:
    """Images and missing files by challenge year; an image of two years counts in both."""
    rows = []
    names = sorted({year for listed in (*images["years"], *missing["years"]) for year in listed.split("+")})
    for name in (*names, "together"):
        part, without_file = (
            table if name == "together" else table[_of_year(table, name)] for table in (images, missing)
        )
        lesions = part["lesion_id"]
        rows.append(
            (name, len(part), len(without_file), part["group"].nunique(), lesions.nunique(), int(lesions.count()))
        )
    header = ("year", "images", "missing files", "groups", "lesions", "images with lesion id")
    return CountTable("Images by year", header, rows)


def patients(images: pd.DataFrame) -> CountTable:
    """Patients by collection, if any is known."""
    header = ("year", "patients", "images with patient id", "images without", "patients with several lesions")
    rows: list[Sequence[object]] = []
    names = sorted({year for listed in images["years"] for year in listed.split("+")})
    for name in (*names, "together") if "patient_id" in images else ():
        part = images if name == "together" else images[_of_year(images, name)]
        known = part["patient_id"].dropna()
        several = int((part.groupby("patient_id")["lesion_id"].nunique() > 1).sum())
        with_several = several if part.loc[known.index, "lesion_id"].notna().any() else "unknown"
        rows.append((name, known.nunique(), len(known), len(part) - len(known), with_several))
    return CountTable("Patients", header, rows)


def _of_year(table: pd.DataFrame, name: str) -> pd.Series:
    return table["years"].str.split("+").map(lambda names: name in names).astype(bool)


def splits(images: pd.DataFrame) -> CountTable:
    """Images, groups and positives per label, by years and split."""
    rows = [
        (f"{names}, {split}", len(part), part["group"].nunique(), *_positives(part))
        for (names, split), part in images.groupby(["years", "split"])
    ]
    together = ("together", len(images), images["group"].nunique(), *_positives(images))
    header = ("", "images", "groups", *label_columns(images))
    return CountTable("Positives by year, split and label", header, [*rows, together])


def labels(images: pd.DataFrame) -> CountTable:
    """Positive, negative and unknown images per label."""
    rows = [(label, *row) for label, row in label_counts(images).iterrows()]
    return CountTable("Labels", ("label", "yes", "no", _UNKNOWN), rows)


def overlaps(images: pd.DataFrame) -> CountTable:
    """How many images any two official splits share."""
    pairs = Counter(pair for listed in images["listed"] for pair in combinations(sorted(set(listed.split("+"))), 2))
    rows = [(f"{first} and {second}", count) for (first, second), count in sorted(pairs.items())]
    return CountTable("Images in two official splits", ("splits", "images"), rows)


def masks(dataset: Dataset) -> CountTable:
    """Images with a lesion mask by split, those without a label among them, and the lesion's share of the image.

    It decodes every mask: a millisecond each. A corrupt one has no share; `checks.stored_check` names it.
    """
    images, reader = dataset.manifest, ShardReader(dataset)
    rows = np.flatnonzero(images["mask_offset"] >= 0)
    shares = pd.Series([_lesion_share(reader, int(row)) for row in rows], index=images.index[rows], dtype="float64")
    unlabelled = pd.Series(np.isnan(targets(images, label_columns(images))).all(axis=1), index=images.index)
    lines = []
    for split, part in images.iloc[rows].groupby("split"):
        share, unknown = shares[part.index], int(unlabelled[part.index].sum())
        lines.append((split, len(part), unknown, f"{share.median():.2f}", int((share == 1).sum())))
    header = ("split", "images", "without labels", "median share of the lesion", "nothing but lesion")
    return CountTable("Lesion masks", header, lines)


def _lesion_share(reader: ShardReader, row: int) -> float:
    try:
        return float(decode_mask(reader.mask(row) or b"").mean())
    except (DataError, OSError, ValueError):
        return float("nan")


def absent(missing: pd.DataFrame, quarantine: pd.DataFrame) -> CountTable:
    """Labelled images without a file, by years and split, and quarantined files, by reason."""
    splits = (missing["years"] + ", " + missing["split"]).value_counts(sort=False).sort_index()
    rows = [(f"no file: {where}", count) for where, count in splits.items()]
    rows += [(f"quarantined: {reason}", count) for reason, count in quarantine.groupby("reason").size().items()]
    return CountTable("Missing and quarantined files", ("", "files"), rows)


def joins_within(images: pd.DataFrame, joins: pd.DataFrame) -> pd.DataFrame:
    """The joins between two images of the data set."""
    return joins[joins["image_id"].isin(images["image_id"]) & joins["other_id"].isin(images["image_id"])]


def reasons(present: pd.DataFrame) -> CountTable:
    """Joined pairs and rejected look-alikes, by reason."""
    rows = []
    for reason in (LESION, PATIENT, LISTED, BYTES, NEAR):
        pairs = present.loc[present["reason"] == reason, "joined"]
        if len(pairs) or reason not in (PATIENT, LISTED):  # which most collections do not know
            rows.append((reason, int(pairs.sum()), int((~pairs).sum())))
    return CountTable("Joins between images of the data set", ("reason", "joined", "rejected"), rows)


def group_sizes(images: pd.DataFrame) -> CountTable:
    """Number of groups by their size."""
    counts = images["group"].value_counts().value_counts().sort_index()
    rows = [(str(size), groups, size * groups) for size, groups in zip(counts.index.astype(int), counts, strict=True)]
    return CountTable("Sizes of groups", ("images in a group", "groups", "images"), rows)


def metadata(images: pd.DataFrame, label_set: tuple[str, ...]) -> list[CountTable]:
    """Age, sex and site of all images and of those with each label: the sample sizes of subgroup metrics."""
    bands = [f"{start} to {end - 1}" for start, end in pairwise(_AGES)]
    bands[-1] = f"{_AGES[-2]} and older"
    ages = pd.Series(pd.cut(images["age"], _AGES, right=False, labels=bands).astype(object), index=images.index)
    columns = [("Age in years", ages, bands)]
    columns += [(name.capitalize(), images[name], list(words)) for name, words in VOCABULARY.items()]
    return [_by_label(title, images, values, words, label_set) for title, values, words in columns]


def sizes(images: pd.DataFrame) -> CountTable:
    """Images by delivered and prepared size: the most frequent sizes, the others in one row."""
    sides = images[["source_width", "source_height", "width", "height"]].astype(str)
    delivered = sides["source_width"] + " × " + sides["source_height"]
    counts = (delivered + " as " + sides["width"] + " × " + sides["height"]).value_counts()
    rows: list[Sequence[object]] = [
        (*str(pair).split(" as "), count, f"{count / len(images):.1%}") for pair, count in counts[:_SIZES_SHOWN].items()
    ]
    rest = counts[_SIZES_SHOWN:]
    if len(rest):
        rows.append((f"{len(rest)} other sizes", "", rest.sum(), f"{rest.sum() / len(images):.1%}"))
    return CountTable("Sizes in pixels", ("as delivered", "as prepared", "images", "share"), rows)


def _by_label(
    title: str, images: pd.DataFrame, values: pd.Series, words: list[str], label_set: tuple[str, ...]
) -> CountTable:
    known = values.fillna(_UNKNOWN)
    rows = []
    for word in (*words, _UNKNOWN):
        part = images[known == word]
        rows.append((word, len(part), *_positives(part, label_set)))
    return CountTable(title, ("", "images", *label_set), rows)


def _positives(images: pd.DataFrame, label_set: Iterable[str] = ()) -> list[int]:
    columns = tuple(label_set) or label_columns(images)
    return [int(count) for count in np.sum(targets(images, columns) == 1, axis=0)]

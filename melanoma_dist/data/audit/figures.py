"""What a data set holds, counted: tables of a few cells, alike for the terminal and for the page of ``data audit``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np
import pandas as pd

from melanoma_dist.data.groups import BYTES, LESION, NEAR
from melanoma_dist.data.labels import LABEL_COLUMNS, label_counts, targets
from melanoma_dist.data.tables import VOCABULARY

_UNKNOWN = "unknown"
_SIZES_SHOWN = 12
_AGES = (0, 20, 30, 40, 50, 60, 70, 80, 200)  # years: where the bands begin, and the end


class Figure(NamedTuple):
    """A table; the first column is text, the others are numbers."""

    title: str
    header: tuple[str, ...]
    rows: Sequence[Sequence[object]]


def years(images: pd.DataFrame, missing: pd.DataFrame) -> Figure:
    """Images that are here and files that are not, by challenge year; an image of two years counts in both."""
    rows = []
    names = sorted({year for listed in (*images["years"], *missing["years"]) for year in listed.split("+")})
    for name in (*names, "together"):
        pattern = "" if name == "together" else name
        part = images[images["years"].str.contains(pattern, regex=False)]
        gone = missing["years"].str.contains(pattern, regex=False)
        known = part["lesion_id"]
        rows.append((name, len(part), int(gone.sum()), part["group"].nunique(), known.nunique(), int(known.count())))
    header = ("year", "images", "missing files", "groups", "lesions named", "images with one")
    return Figure("Images by year", header, rows)


def splits(images: pd.DataFrame) -> Figure:
    """Images, groups and positives per label, by the years that hold an image and its split."""
    rows = [
        (f"{held}, {split}", len(part), part["group"].nunique(), *_positives(part))
        for (held, split), part in images.groupby(["years", "split"])
    ]
    together = ("together", len(images), images["group"].nunique(), *_positives(images))
    return Figure("Positives by year, split and label", ("", "images", "groups", *LABEL_COLUMNS), [*rows, together])


def labels(images: pd.DataFrame) -> Figure:
    """What is known about each label."""
    rows = [(label, *row) for label, row in label_counts(images).iterrows()]
    return Figure("Labels", ("label", "yes", "no", _UNKNOWN), rows)


def overlaps(images: pd.DataFrame) -> Figure:
    """How many images any two official splits share."""
    pairs = Counter(pair for listed in images["listed"] for pair in combinations(sorted(set(listed.split("+"))), 2))
    rows = [(f"{first} and {second}", count) for (first, second), count in sorted(pairs.items())]
    return Figure("Images in two official splits", ("splits", "images"), rows)


def absent(missing: pd.DataFrame, quarantine: pd.DataFrame) -> Figure:
    """Labelled images without a file, by years and split, and files that could not be read, by reason."""
    gone = (missing["years"] + ", " + missing["split"]).value_counts(sort=False).sort_index()
    rows = [(f"no file: {where}", count) for where, count in gone.items()]
    rows += [(f"unreadable: {reason}", count) for reason, count in quarantine.groupby("reason").size().items()]
    return Figure("Missing and quarantined files", ("", "files"), rows)


def here(images: pd.DataFrame, joins: pd.DataFrame) -> pd.DataFrame:
    """The joins whose two images are both in the data set."""
    return joins[joins["image_id"].isin(images["image_id"]) & joins["other_id"].isin(images["image_id"])]


def reasons(present: pd.DataFrame) -> Figure:
    """Pairs that were joined, and look-alikes that were not, by reason."""
    rows = []
    for reason in (LESION, BYTES, NEAR):
        pairs = present.loc[present["reason"] == reason, "joined"]
        rows.append((reason, int(pairs.sum()), int((~pairs).sum())))
    return Figure("Joins of two images that are both here", ("reason", "joined", "looked at and refused"), rows)


def group_sizes(images: pd.DataFrame) -> Figure:
    """How many groups have how many images."""
    counts = images["group"].value_counts().value_counts().sort_index()
    rows = [(str(size), groups, size * groups) for size, groups in zip(counts.index.astype(int), counts, strict=True)]
    return Figure("Sizes of groups", ("images in a group", "groups", "images"), rows)


def metadata(images: pd.DataFrame, label_set: tuple[str, ...]) -> list[Figure]:
    """Age, sex and site of all images and of those with each label: what a subgroup's figures would rest on."""
    bands = [f"{start} to {end - 1}" for start, end in pairwise(_AGES)]
    bands[-1] = f"{_AGES[-2]} and older"
    ages = pd.Series(pd.cut(images["age"], _AGES, right=False, labels=bands).astype(object), index=images.index)
    columns = [("Age in years", ages, bands)]
    columns += [(name.capitalize(), images[name], list(words)) for name, words in VOCABULARY.items()]
    return [_by_label(title, images, values, words, label_set) for title, values, words in columns]


def sizes(images: pd.DataFrame) -> Figure:
    """How many images came in which size, and what it became; the most frequent sizes, and the rest in one row."""
    delivered, prepared = (
        _size(images["source_width"], images["source_height"]),
        _size(images["width"], images["height"]),
    )
    counts = (delivered + " as " + prepared).value_counts()
    rows: list[Sequence[object]] = [
        (*str(pair).split(" as "), count, f"{count / len(images):.1%}") for pair, count in counts[:_SIZES_SHOWN].items()
    ]
    rest = counts[_SIZES_SHOWN:]
    if len(rest):
        rows.append((f"{len(rest)} other sizes", "", rest.sum(), f"{rest.sum() / len(images):.1%}"))
    return Figure("Sizes in pixels", ("as delivered", "as prepared", "images", "share"), rows)


def _size(width: pd.Series, height: pd.Series) -> pd.Series:
    return width.astype(str) + " × " + height.astype(str)


def _by_label(
    title: str, images: pd.DataFrame, values: pd.Series, words: list[str], label_set: tuple[str, ...]
) -> Figure:
    known = values.fillna(_UNKNOWN)
    rows = []
    for word in (*words, _UNKNOWN):
        part = images[known == word]
        rows.append((word, len(part), *_positives(part, label_set)))
    return Figure(title, ("", "images", *label_set), rows)


def _positives(images: pd.DataFrame, label_set: Iterable[str] = LABEL_COLUMNS) -> list[int]:
    return [int(count) for count in np.sum(targets(images, tuple(label_set)) == 1, axis=0)]

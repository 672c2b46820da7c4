"""Reads the CSV tables of a collection row by row, and collects all wrong entries into one message."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import pandas as pd

from melanoma_dist.data.rows import read_rows
from melanoma_dist.errors import DataError

Column = Literal["lesion_id", "patient_id", "age", "sex", "site"]
"""A column of metadata."""

VOCABULARY = {
    "sex": ("female", "male"),
    "site": (
        "head/neck", "anterior torso", "posterior torso", "lateral torso", "upper extremity", "lower extremity",
        "palms/soles", "oral/genital",
    ),
}  # fmt: skip
"""The words of the metadata in a manifest, for all collections."""

_ABSENT = {"", "unknown", "nan", "na", "n/a"}
_OLDEST_YEARS = 120
_DECIMAL = re.compile(r"[0-9]+(\.[0-9]*)?")
_SHOWN = 40
_LONGEST_SHOWN = 200  # characters of a wrong entry


class IdColumn(NamedTuple):
    """The column of image ids in a collection's tables."""

    name: str
    parse: Callable[[str], str | None]
    """The image id of an entry, or None if the entry is wrong."""
    rule: str
    """The rule that wrong entries break, for the message."""


@dataclass
class Problems:
    """The wrong entries so far."""

    entries: list[str] = field(default_factory=list)
    """Messages of the first ones."""
    count: int = 0

    def add(self, path: Path, line: int, column: str, value: object, rule: str) -> None:
        """Record one wrong entry: its place, its value and the rule that it breaks."""
        self.count += 1
        if len(self.entries) < _SHOWN:
            text = repr(value)
            text = text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
            self.entries.append(f"{path} line {line}: {column} {text}: {rule}")

    def raise_any(self) -> None:
        """Raise one DataError with the first 40 entries and the number of the others. Does nothing without entries."""
        if not self.entries:
            return
        hidden = self.count - len(self.entries)
        lines = self.entries + ([f"... and {hidden} more"] if hidden > 0 else [])
        raise DataError(
            f"{self.count} wrong entries in the tables:\n  " + "\n  ".join(lines) + "\n"
            "Get the tables again with `data download`, or correct these lines."
        )


def read_table(
    path: Path, ids: IdColumn, columns: tuple[str, ...], problems: Problems, exactly: bool = False
) -> pd.DataFrame:
    """The named columns of a CSV as text, with ``line``, ``image_id`` and the ``entry`` that the id was parsed from.

    Further columns are ignored, or a problem if ``exactly`` these are expected. Rows with a wrong or repeated id are
    problems and left out.
    """
    needed = (ids.name, *columns)
    nothing = pd.DataFrame(columns=["line", "image_id", "entry", *columns])
    try:
        rows = read_rows(path, strict=True)
    except (OSError, ValueError) as error:
        problems.add(path, 1, "file", path.name, f"cannot be read as a CSV in UTF-8 ({error})")
        return nothing
    header = [name.strip() for name in rows[0][1]] if rows else []
    missing = [name for name in needed if name not in header]
    if rows and missing:
        problems.add(path, 1, "header", ",".join(header), f"the columns {', '.join(missing)} are missing")
        return nothing
    if len(rows) < 2:
        rule = "the table is empty" + (": it has no row below its header" if rows else "")
        problems.add(path, 1, "file", path.name, rule)
        return nothing
    times = Counter(header)
    extra = [name for name in header if times[name] > 1 or (exactly and name not in needed)]
    if extra:
        problems.add(path, 1, "header", ",".join(header), f"has unexpected columns: {', '.join(extra)}")
    positions = [header.index(name) for name in needed]
    records: list[tuple[int | str, ...]] = []
    lines: dict[str, int] = {}
    for line, row in rows[1:]:
        if len(row) != len(header):
            problems.add(path, line, "row", ",".join(row), f"has {len(row)} fields, the header has {len(header)}")
            continue
        entry, *values = (row[position].strip() for position in positions)
        if strange := next((value for value in values if not value.isprintable()), None):
            problems.add(path, line, "row", strange, "contains a character that is not printable")
            continue
        image_id = ids.parse(entry)
        if image_id is None:
            problems.add(path, line, ids.name, entry, ids.rule)
        elif image_id in lines:
            problems.add(path, line, ids.name, entry, f"is in line {lines[image_id]} already")
        else:
            lines[image_id] = line
            records.append((line, image_id, entry, *values))
    return pd.DataFrame(records, columns=["line", "image_id", "entry", *columns])


def read_labels(
    path: Path, ids: IdColumn, columns: tuple[str, ...], unlabelled_rows: bool, problems: Problems
) -> pd.DataFrame:
    """``image_id``, ``entry`` and the label columns, 0.0 or 1.0. One of them is 1, or none if ``unlabelled_rows``.

    An unknown column is a problem: a diagnosis would be lost.
    """
    table = read_table(path, ids, columns, problems, exactly=True)
    labels = pd.DataFrame({name: pd.to_numeric(table[name], errors="coerce").astype(float) for name in columns})
    valid = labels.isin([0.0, 1.0])
    for position, column in zip(*(~valid.to_numpy()).nonzero(), strict=True):
        name = columns[column]
        problems.add(path, table["line"].iloc[position], name, table[name].iloc[position], "must be 0 or 1")
    positives = labels.sum(axis=1)
    wrong = valid.all(axis=1) & ((positives > 1) | ((positives == 0) & (not unlabelled_rows)))
    for position in wrong.to_numpy().nonzero()[0]:
        positive = [name for name in columns if labels[name].iloc[position] == 1]
        rule = "only one of them may be 1" if positive else "one of them must be 1"
        problems.add(path, table["line"].iloc[position], "labels", " ".join(positive) or "none", rule)
    return pd.concat([table[["image_id", "entry"]], labels], axis=1)


def read_metadata(path: Path, ids: IdColumn, columns: dict[Column, str], problems: Problems) -> pd.DataFrame:
    """``image_id`` and our ``columns``, each with the collection's name for it: ``age`` float years, the others text.

    ``unknown`` and empty fields become NaN or None.
    """
    table = read_table(path, ids, tuple(columns.values()), problems)
    about = pd.DataFrame({"image_id": table["image_id"]})
    for ours, theirs in columns.items():
        values = [None if value.lower() in _ABSENT else value for value in table[theirs]]
        if ours == "age":
            lines = table["line"].to_list()
            about[ours] = [_age(path, line, theirs, text, problems) for line, text in zip(lines, values, strict=True)]
        else:
            about[ours] = pd.Series(values, dtype="str")
        if ours in VOCABULARY:
            about[ours] = about[ours].str.lower()
            for position in (~about[ours].isin([*VOCABULARY[ours]]) & about[ours].notna()).to_numpy().nonzero()[0]:
                rule = f"must be one of {', '.join(VOCABULARY[ours])}, or unknown"
                problems.add(path, table["line"].iloc[position], theirs, values[position], rule)
    return about


def _age(path: Path, line: int, column: str, text: str | None, problems: Problems) -> float:
    if text is None:
        return float("nan")
    age = float(text) if _DECIMAL.fullmatch(text) else -1.0  # float() accepts 1_0, -nan and digits of other scripts
    if not 0 <= age <= _OLDEST_YEARS:
        problems.add(path, line, column, text, f"must be an age of 0 to {_OLDEST_YEARS} years, or unknown")
    return age

"""Reads the CSV tables of a collection row by row, and collects all wrong entries into one message."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import pandas as pd

from melanoma_dist.data.rows import read_header, read_rows
from melanoma_dist.errors import DataError, nearest
from melanoma_dist.storage.images import SUFFIXES

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

ABSENT = {"", "unknown", "nan", "na", "n/a"}
"""How tables write that a value is unknown, in lower case."""
OLDEST_YEARS = 120
_DECIMAL = re.compile(r"[0-9]+(\.[0-9]*)?")
_INDEX = re.compile(r"(Unnamed: [0-9]+)?")  # as pandas writes and reads the column of row numbers
_SHOWN = 40
_ALSO_SHOWN = 3  # further entries with the same cause
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
    """The wrong entries so far, by their cause: the table, the column and the rule."""

    causes: dict[tuple[Path, str, str], dict[int, str]] = field(default_factory=dict)
    """The wrong values of each cause by line. A table that is read twice counts once."""
    remarks: dict[str, None] = field(default_factory=dict)
    """Observations about tables that were read although they are unusual, each once."""

    def add(self, path: Path, line: int, column: str, value: object, rule: str) -> None:
        """Record one wrong entry: its place, its value and the rule that it breaks."""
        text = repr(value)
        text = text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
        self.causes.setdefault((path, column, rule), {}).setdefault(line, text)

    def remark(self, path: Path, text: str) -> None:
        """Record an observation about a table that calls for no action."""
        self.remarks[f"{path}: {text}."] = None

    @property
    def count(self) -> int:
        """The number of wrong entries."""
        return sum(map(len, self.causes.values()))

    def raise_any(self) -> None:
        """Raise one DataError with the first 40 causes and the number of the others. Does nothing without entries."""
        if not self.causes:
            return
        lines = [_describe(*cause, values) for cause, values in self.causes.items()]
        hidden = [f"... and {len(lines) - _SHOWN} more causes"] if len(lines) > _SHOWN else []
        raise DataError(
            f"{self.count} wrong {'entry' if self.count == 1 else 'entries'} in the tables:\n  "
            + "\n  ".join(lines[:_SHOWN] + hidden)
            + "\n"
            "Correct these lines. `data download` gets the tables of the challenges as they were published."
        )


def _describe(path: Path, column: str, rule: str, values: dict[int, str]) -> str:
    """One cause in one line: its first entry, and where else it occurs."""
    (line, value), *others = values.items()
    also = [f"line {line} {value}" for line, value in others[:_ALSO_SHOWN]]
    if len(others) > _ALSO_SHOWN:
        also.append(f"{len(others) - _ALSO_SHOWN} more")
    return f"{path} line {line}: {column} {value}: {rule}" + (f" (also {', '.join(also)})" if also else "")


def read_table(path: Path, ids: IdColumn, columns: tuple[str, ...], problems: Problems) -> pd.DataFrame:
    """The named columns of a CSV as text, with ``line``, ``image_id`` and the ``entry`` that the id was parsed from.

    Further columns and empty rows are ignored. Rows with a wrong or repeated id are problems and left out.
    """
    rows = read_fields(path, (ids.name, *columns), problems)
    records: list[tuple[int | str, ...]] = []
    image_ids: set[str] = set()
    file_names = 0
    for line, (entry, *values) in rows:
        if strange := next((value for value in values if not value.isprintable()), None):
            problems.add(path, line, "row", strange, "contains a character that is not printable")
            continue
        name = without_suffix(entry)
        file_names += name != entry
        image_id = ids.parse(name)
        if image_id is None:
            problems.add(path, line, ids.name, entry, ids.rule)
        elif image_id in image_ids:
            problems.add(path, line, ids.name, entry, "is in an earlier line already")
        else:
            image_ids.add(image_id)
            records.append((line, image_id, name, *values))
    if file_names:
        problems.remark(path, f"read {file_names} file names in the column {ids.name} as image ids")
    return pd.DataFrame(records, columns=["line", "image_id", "entry", *columns])


def without_suffix(entry: str) -> str:
    """A file name without the suffix of a photograph."""
    return next((entry[: -len(each)] for each in SUFFIXES if entry.lower().endswith(each)), entry)


def read_fields(path: Path, needed: tuple[str, ...], problems: Problems) -> list[tuple[int, list[str]]]:
    """The needed fields of each row of a table that is not empty, with its line; none if the table is unusable."""
    try:
        rows, delimiter, encoding = read_rows(path, strict=True)
    except (OSError, ValueError) as error:
        problems.add(path, 1, "file", path.name, f"cannot be read as a table ({error})")
        return []
    header = [name.strip() for name in rows[0][1]] if rows else []
    times = Counter(header)
    names = ",".join(header)
    if rows and (missing := [name for name in needed if not times[name]]):
        near = [f"{close} for {name}" for name in missing if (close := nearest(name, times, count=1))]
        meant = f". Did you mean: {'; '.join(near)}?" if near else ""
        absent = f"columns {', '.join(missing)} are" if len(missing) > 1 else f"column {missing[0]} is"
        problems.add(path, 1, "header", names, f"the {absent} missing{meant}")
        return []
    if repeated := [name for name in needed if times[name] > 1]:
        problems.add(path, 1, "header", names, f"has several columns named {', '.join(repeated)}")
        return []
    filled = [(line, row) for line, row in rows[1:] if any(field.strip() for field in row)]
    if not filled:
        rule = "the table is empty" + (": it has no row below its header" if rows else "")
        problems.add(path, 1, "file", path.name, rule)
        return []
    if encoding != "UTF-8":
        problems.remark(path, f"read as {encoding}")
    _remark_spreadsheet(path, header, delimiter, len(rows) - 1 - len(filled), problems)
    for line, row in filled:
        if len(row) != len(header):
            problems.add(path, line, "row", ",".join(row), f"has {len(row)} fields, the header has {len(header)}")
    positions = [header.index(name) for name in needed]
    return [(line, [row[place].strip() for place in positions]) for line, row in filled if len(row) == len(header)]


def _remark_spreadsheet(path: Path, header: list[str], delimiter: str, empty: int, problems: Problems) -> None:
    """Remark what a spreadsheet or pandas added to a table."""
    if name := {";": "semicolons", "\t": "tabs"}.get(delimiter):
        problems.remark(path, f"read {name} between the fields, and decimal commas as points")
    if unnamed := sum(_INDEX.fullmatch(name) is not None for name in header):
        problems.remark(path, f"ignored {unnamed} columns without a name")
    if empty:
        problems.remark(path, f"ignored {empty} empty rows")


def read_labels(
    path: Path, ids: IdColumn, columns: tuple[str, ...], unlabelled_rows: bool, problems: Problems
) -> pd.DataFrame:
    """``image_id``, ``entry`` and the label columns, 0.0 or 1.0. One of them is 1, or none if ``unlabelled_rows``.

    Further columns are remarked: they might be diagnoses.
    """
    table = read_table(path, ids, columns, problems)
    if extra := [name for name in read_header(path) if name not in (ids.name, *columns) and not _INDEX.fullmatch(name)]:
        problems.remark(path, f"does not use the columns {', '.join(extra)}")
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


def read_metadata(
    path: Path,
    ids: IdColumn,
    columns: dict[Column, str],
    problems: Problems,
    words: Mapping[str, Mapping[str, str]] | None = None,
) -> pd.DataFrame:
    """``image_id`` and our ``columns``, each with the collection's name for it: ``age`` float years, the others text.

    ``unknown`` and empty fields become NaN or None. ``words`` translates a column's words, in lower case, to ours.
    """
    table = read_table(path, ids, tuple(columns.values()), problems)
    about = pd.DataFrame({"image_id": table["image_id"]})
    for ours, theirs in columns.items():
        translated = (words or {}).get(ours, {})
        values = [translated.get(value.casefold(), value) for value in table[theirs]]
        values = [None if value.lower() in ABSENT else value for value in values]
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
    if not 0 <= age <= OLDEST_YEARS:
        problems.add(path, line, column, text, f"must be an age of 0 to {OLDEST_YEARS} years, or unknown")
    return age

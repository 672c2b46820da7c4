"""The challenges' CSV files, row by row, with everything that is wrong in them collected to be told at once."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from melanoma_dist.data.layout import IMAGE_ID
from melanoma_dist.data.rows import read_rows
from melanoma_dist.errors import DataError

VOCABULARY = {
    "sex": ("female", "male"),
    "site": (
        "head/neck", "anterior torso", "posterior torso", "lateral torso", "upper extremity", "lower extremity",
        "palms/soles", "oral/genital",
    ),
}  # fmt: skip
"""The words of the metadata in a manifest, whatever the year writes."""

_ABSENT = {"", "unknown", "nan", "na", "n/a"}
_OLDEST_YEARS = 120
_DECIMAL = re.compile(r"[0-9]+(\.[0-9]*)?")
_SHOWN = 40
_LONGEST_TOLD = 200  # characters of a wrong entry


@dataclass
class Problems:
    """The wrong entries met so far."""

    entries: list[str] = field(default_factory=list)
    """The first of them in words."""
    count: int = 0

    def add(self, path: Path, line: int, column: str, value: object, rule: str) -> None:
        """Note one entry: where it stands, what it says and what it should."""
        self.count += 1
        if len(self.entries) < _SHOWN:
            told = repr(value)
            told = told if len(told) <= _LONGEST_TOLD else f"{told[:_LONGEST_TOLD]}..."
            self.entries.append(f"{path} line {line}: {column} {told}: {rule}")

    def raise_any(self) -> None:
        """Raise one DataError that tells them all (the first 40 in words), or do nothing if there are none."""
        if not self.entries:
            return
        hidden = self.count - len(self.entries)
        shown = self.entries + ([f"... and {hidden} more"] if hidden > 0 else [])
        raise DataError(
            f"{self.count} wrong entries in the tables:\n  " + "\n  ".join(shown) + "\n"
            "Get the tables again with `data download`, or correct these lines."
        )


def read_table(
    path: Path, id_column: str, columns: tuple[str, ...], problems: Problems, exactly: bool = False
) -> pd.DataFrame:
    """The named columns of a CSV as text, with ``line``, the base id ``image_id`` and whether it was ``downsampled``.

    Columns beyond these are ignored, or noted as a problem if ``exactly`` these are expected. Rows without a valid, new
    id are noted as problems and left out.
    """
    needed = (id_column, *columns)
    nothing = pd.DataFrame(columns=["line", "image_id", "downsampled", *columns])
    try:
        rows = read_rows(path, strict=True)
    except (OSError, ValueError) as error:
        problems.add(path, 1, "file", path.name, f"cannot be read as a CSV in UTF-8 ({error})")
        return nothing
    header = [name.strip() for name in rows[0][1]] if rows else []
    missing = [name for name in needed if name not in header]
    if rows and missing:
        problems.add(path, 1, "header", ",".join(header), f"lacks the columns {', '.join(missing)}")
        return nothing
    if len(rows) < 2:
        rule = "the table is empty" + (": it has no row below its header" if rows else "")
        problems.add(path, 1, "file", path.name, rule)
        return nothing
    times = Counter(header)
    extra = [name for name in header if times[name] > 1 or (exactly and name not in needed)]
    if extra:
        problems.add(path, 1, "header", ",".join(header), f"has the columns {', '.join(extra)} too many")
    positions = [header.index(name) for name in needed]
    records: list[tuple[int | bool | str, ...]] = []
    seen: dict[str, int] = {}
    for line, row in rows[1:]:
        if len(row) != len(header):
            problems.add(path, line, "row", ",".join(row), f"has {len(row)} fields, the header has {len(header)}")
            continue
        name, *values = (row[position].strip() for position in positions)
        if strange := next((value for value in values if not value.isprintable()), None):
            problems.add(path, line, "row", strange, "holds a character that is no text")
            continue
        if image_id := _new_id(path, line, id_column, name, seen, problems):
            records.append((line, image_id, name.lower().endswith("_downsampled"), *values))
    return pd.DataFrame(records, columns=["line", "image_id", "downsampled", *columns])


def _new_id(path: Path, line: int, column: str, name: str, seen: dict[str, int], problems: Problems) -> str | None:
    match = IMAGE_ID.fullmatch(name)
    if match is None:
        problems.add(path, line, column, name, "must be ISIC_ and seven digits")
        return None
    image_id = match[1].upper()
    if image_id in seen:
        problems.add(path, line, column, name, f"stands in line {seen[image_id]} already")
        return None
    seen[image_id] = line
    return image_id


def read_labels(
    path: Path, id_column: str, columns: tuple[str, ...], may_be_none: bool, problems: Problems
) -> pd.DataFrame:
    """``image_id``, ``downsampled`` and the label columns, 0.0 or 1.0: one of them is 1, or none if ``may_be_none``.

    A column that the challenge does not have is a problem: it may be a diagnosis that would be lost.
    """
    table = read_table(path, id_column, columns, problems, exactly=True)
    labels = pd.DataFrame({name: pd.to_numeric(table[name], errors="coerce").astype(float) for name in columns})
    valid = labels.isin([0.0, 1.0])
    for position, column in zip(*(~valid.to_numpy()).nonzero(), strict=True):
        name = columns[column]
        problems.add(path, table["line"].iloc[position], name, table[name].iloc[position], "must be 0 or 1")
    positives = labels.sum(axis=1)
    wrong = valid.all(axis=1) & ((positives > 1) | ((positives == 0) & (not may_be_none)))
    for position in wrong.to_numpy().nonzero()[0]:
        given = [name for name in columns if labels[name].iloc[position] == 1]
        rule = "only one of them may be 1" if given else "one of them must be 1"
        problems.add(path, table["line"].iloc[position], "labels", " ".join(given) or "none", rule)
    return pd.concat([table[["image_id", "downsampled"]], labels], axis=1)


def read_metadata(path: Path, id_column: str, columns: dict[str, str], problems: Problems) -> pd.DataFrame:
    """``image_id`` and our columns, read from the year's (``{ours: theirs}``): ``age`` float years, the others text.

    ``unknown`` and empty fields are absent: NaN and None.
    """
    table = read_table(path, id_column, tuple(columns.values()), problems)
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
    age = float(text) if _DECIMAL.fullmatch(text) else -1.0  # float() takes 1_0, -nan and digits of other scripts
    if not 0 <= age <= _OLDEST_YEARS:
        problems.add(path, line, column, text, f"must be an age of 0 to {_OLDEST_YEARS} years, or unknown")
    return age

"""Rows of an untrusted CSV file, read with limits. Light: a download uses it too.

Spreadsheets of many countries write semicolons between the fields and a comma before the decimals. Both are understood.
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path
from typing import NamedTuple

from melanoma_dist.storage.untrusted import MEBIBYTE, read_bytes

# Python's csv limits fields to 128 KiB, but not rows and columns.
_MOST_BYTES = 16 * MEBIBYTE  # of a table; the largest has two
_MOST_ROWS = 500_000  # the largest has 25,331
_MOST_COLUMNS = 100
_MOST_HEADER = 64 * 1024  # bytes
_DECIMAL_COMMA = re.compile(r"(-?[0-9]+),([0-9]+)")


class Rows(NamedTuple):
    """The content of a CSV."""

    rows: list[tuple[int, list[str]]]
    """The rows that are not empty, each with the number of its last line."""
    delimiter: str
    """The character between the fields."""


def _delimiter(line: str) -> str:
    """The character between the fields of a header: a comma, or what spreadsheets write in its place."""
    return "," if "," in line else max(",;\t", key=line.count)


def read_header(path: Path) -> tuple[str, ...]:
    """The column names of a CSV; none if the file is unreadable. Reads only its first line."""
    try:
        with path.open("rb") as file:
            line = file.readline(_MOST_HEADER).decode("utf-8-sig").rstrip("\r\n")
        names = next(csv.reader([line], delimiter=_delimiter(line)), [])
    except (OSError, ValueError, csv.Error):
        return ()
    return tuple(name.strip() for name in names)


def read_rows(path: Path, strict: bool = False) -> Rows:
    """Read a whole CSV. Raises OSError or ValueError."""
    rows: list[tuple[int, list[str]]] = []
    content = read_bytes(path, _MOST_BYTES).decode("utf-8-sig")
    delimiter = _delimiter(content.partition("\n")[0])
    try:
        reader = csv.reader(io.StringIO(content, newline=""), strict=strict, delimiter=delimiter)
        for row in reader:
            if len(rows) == _MOST_ROWS or len(row) > _MOST_COLUMNS:
                raise ValueError(
                    f"more than {_MOST_ROWS} rows or {_MOST_COLUMNS} columns; no known collection has so many"
                )
            if row:
                rows.append((reader.line_num, row if delimiter == "," else [_with_point(field) for field in row]))
    except csv.Error as error:
        raise ValueError(str(error)) from error
    return Rows(rows, delimiter)


def _with_point(field: str) -> str:
    match = _DECIMAL_COMMA.fullmatch(field.strip())
    return f"{match[1]}.{match[2]}" if match else field

"""Rows of an untrusted CSV file, read with limits. Light: a download uses it too."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from melanoma_dist.storage.untrusted import MEBIBYTE, read_bytes

# Python's csv limits fields to 128 KiB, but not rows and columns.
_MOST_BYTES = 16 * MEBIBYTE  # of a table; the largest has two
_MOST_ROWS = 500_000  # the largest has 25,331
_MOST_COLUMNS = 100


def read_rows(path: Path, strict: bool = False) -> list[tuple[int, list[str]]]:
    """The rows of a CSV that are not empty, each with the number of its last line. Raises OSError or ValueError."""
    rows: list[tuple[int, list[str]]] = []
    text = io.StringIO(read_bytes(path, _MOST_BYTES).decode("utf-8-sig"), newline="")
    try:
        reader = csv.reader(text, strict=strict)
        for row in reader:
            if len(rows) == _MOST_ROWS or len(row) > _MOST_COLUMNS:
                raise ValueError(
                    f"more than {_MOST_ROWS} rows or {_MOST_COLUMNS} columns; no known collection has so many"
                )
            if row:
                rows.append((reader.line_num, row))
    except csv.Error as error:
        raise ValueError(str(error)) from error
    return rows

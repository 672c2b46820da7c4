"""The rows of a CSV file that somebody else made (light: a download needs them too)."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from melanoma_dist.storage.untrusted import MEBIBYTE, read_bytes

# Python's csv takes fields of 128 KiB at most, and so many rows and columns as the memory holds.
_MOST = 16 * MEBIBYTE  # of a table; the largest has two
_MOST_ROWS = 500_000  # the largest has 25,331
_MOST_COLUMNS = 100


def read_rows(path: Path, strict: bool = False) -> list[tuple[int, list[str]]]:
    """The rows of a CSV that are not empty, with the lines where they end. Raises OSError or ValueError for none."""
    rows: list[tuple[int, list[str]]] = []
    text = io.StringIO(read_bytes(path, _MOST).decode("utf-8-sig"), newline="")
    try:
        reader = csv.reader(text, strict=strict)
        for row in reader:
            if len(rows) == _MOST_ROWS or len(row) > _MOST_COLUMNS:
                raise ValueError(
                    f"more than {_MOST_ROWS} rows or {_MOST_COLUMNS} columns, and no challenge has so many"
                )
            if row:
                rows.append((reader.line_num, row))
    except csv.Error as error:
        raise ValueError(str(error)) from error
    return rows

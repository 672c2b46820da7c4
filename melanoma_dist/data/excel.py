"""Rows of an untrusted Excel workbook (.xlsx): the values of its one sheet, as the text that a CSV would have.

Refused is what would lose values in silence: several sheets, merged cells, and formulas without a stored result.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from datetime import date, datetime, time
from typing import TYPE_CHECKING, Any

from melanoma_dist.storage.untrusted import MEBIBYTE

if TYPE_CHECKING:
    from openpyxl.worksheet.worksheet import Worksheet

_MOST_UNPACKED = 64 * MEBIBYTE  # a table of 25,000 rows and 20 columns has some 20
_SAVE = "save that sheet alone as a workbook, or as `CSV UTF-8`"


def is_workbook(content: bytes) -> bool:
    """Whether the bytes are of Excel, of its formats today or until 2003."""
    return content.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0"))


def read_sheet(content: bytes) -> list[tuple[int, list[str]]]:
    """The rows of a workbook's sheet that are not empty, each with its number. Raises ValueError."""
    results, formulas = _only_sheet(content, results=True), _only_sheet(content, results=False)
    if merged := sorted(map(str, results.merged_cells.ranges)):
        raise ValueError(f"the cells {merged[0]} are merged, so that all but one are blank. Split them")
    rows: list[tuple[int, list[str]]] = []
    for number, (values, sources) in enumerate(zip(results.iter_rows(), formulas.iter_rows(), strict=True), start=1):
        for cell, source in zip(values, sources, strict=True):
            if source.data_type == "f" and cell.value is None:
                raise ValueError(f"cell {cell.coordinate} has a formula without a result. Open it in Excel and save it")
        fields = [_text(cell.value) for cell in values]
        if any(fields):
            rows.append((number, fields))
    width = max((at for at, name in enumerate(rows[0][1], start=1) if name), default=0) if rows else 0
    return [(number, fields[: max(width, _filled(fields))]) for number, fields in rows]


def _only_sheet(content: bytes, results: bool) -> Worksheet:
    """The one visible sheet with content. ``results``: with the stored results of formulas in their place."""
    if not content.startswith(b"PK"):
        raise ValueError(
            "a workbook with a password, or of Excel until 2003 (.xls). Save it as .xlsx, or as `CSV UTF-8`"
        )
    try:
        from openpyxl import load_workbook
    except ModuleNotFoundError:
        raise ValueError(
            "an Excel workbook: `pip install 'melanoma-dist[excel]'` reads it, or save it as `CSV UTF-8`"
        ) from None
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > _MOST_UNPACKED:
            raise ValueError(
                f"unpacked it has {unpacked} bytes, more than {_MOST_UNPACKED}; no known collection has so many"
            )
        with warnings.catch_warnings(action="ignore"):  # of what is no value: styles, lists to choose from
            workbook = load_workbook(io.BytesIO(content), data_only=results)
    except (KeyError, OSError, zipfile.BadZipFile, SyntaxError, TypeError, EOFError) as error:
        raise ValueError(f"the workbook is corrupt or no workbook ({error})") from error
    sheets = [
        each for each in workbook.worksheets if each.sheet_state == "visible" and each.max_row + each.max_column > 2
    ]
    if len(sheets) > 1:
        raise ValueError(
            f"the sheets {', '.join(each.title for each in sheets)} have content. Of the one you mean: {_SAVE}"
        )
    if not sheets:
        raise ValueError("no visible sheet of the workbook has content")
    return sheets[0]


def _filled(fields: list[str]) -> int:
    return max((at for at, field in enumerate(fields, start=1) if field), default=0)


def _text(value: Any) -> str:
    """A cell as a CSV would have it: whole numbers without decimals, truths as 1 and 0, dates as in ISO 8601."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, datetime) and value.time() == time():
        return value.date().isoformat()
    return value.isoformat() if isinstance(value, date | time) else str(value)

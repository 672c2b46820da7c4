"""Rows of an untrusted CSV file or Excel workbook, read with limits. Light: a download uses it too.

Spreadsheets of many countries write semicolons between the fields and a comma before the decimals, in Windows-1252 or
UTF-16. All are understood.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from melanoma_dist.data.excel import is_workbook, read_sheet
from melanoma_dist.storage.untrusted import MEBIBYTE, read_bytes

# Python's csv limits fields to 128 KiB, but not rows and columns.
_MOST_BYTES = 16 * MEBIBYTE  # of a table; the largest has two
_MOST_ROWS = 500_000  # the largest has 25,331
_MOST_COLUMNS = 100
_MOST_HEADER = 64 * 1024  # bytes
_BAR = "||"
_DECIMAL_COMMA = re.compile(r"(-?[0-9]+),([0-9]+)")


class Rows(NamedTuple):
    """The content of a table."""

    rows: list[tuple[int, list[str]]]
    """The rows that are not empty, each with the number of its last line."""
    delimiter: str
    """The character between the fields, or ``||``; none in a workbook."""
    encoding: str
    """UTF-8, UTF-16, Windows-1252, or an Excel workbook."""


def _delimiter(line: str) -> str:
    """The character between the fields of a header: a comma, or what spreadsheets write in its place."""
    return "," if "," in line else max(",;\t", key=line.count)


def read_header(path: Path) -> tuple[str, ...]:
    """The column names of a table; none if the file is unreadable. Of a CSV, reads only the first line."""
    try:
        with path.open("rb") as file:
            head = file.read(_MOST_HEADER)
        if is_workbook(head):
            return tuple(name.strip() for name in read_rows(path).rows[0][1])
        # The last line may be cut within a character.
        text, _ = _decode(head[: len(head) // 2 * 2] if _is_utf16(head) else head.partition(b"\n")[0])
        line = text.partition("\n")[0].rstrip("\r")
        bars = next((row for _, row in _rows_of_bars(line)), None)
        names = bars or next(csv.reader([line], delimiter=_delimiter(line)), [])
    except (OSError, ValueError, IndexError, csv.Error):
        return ()
    return tuple(name.strip() for name in names)


def read_rows(path: Path, strict: bool = False) -> Rows:
    """Read a whole CSV, a table of bars, or the sheet of a workbook. Raises OSError or ValueError."""
    data = read_bytes(path, _MOST_BYTES)
    if is_workbook(data):
        sheet = read_sheet(data)
        _check_size(len(sheet), max((len(row) for _, row in sheet), default=0))
        return Rows(sheet, "", "an Excel workbook")
    content, encoding = _decode(data)
    if content.startswith(_BAR):
        return Rows(list(_rows_of_bars(content)), _BAR, encoding)
    rows: list[tuple[int, list[str]]] = []
    delimiter = _delimiter(content.partition("\n")[0])
    try:
        reader = csv.reader(io.StringIO(content, newline=""), strict=strict, delimiter=delimiter)
        for row in reader:
            _check_size(len(rows) + 1, len(row))
            if row:
                rows.append((reader.line_num, row if delimiter == "," else [_with_point(field) for field in row]))
    except csv.Error as error:
        raise ValueError(str(error)) from error
    return Rows(rows, delimiter, encoding)


def _check_size(rows: int, columns: int) -> None:
    if rows > _MOST_ROWS or columns > _MOST_COLUMNS:
        raise ValueError(f"more than {_MOST_ROWS} rows or {_MOST_COLUMNS} columns; no known collection has so many")


def _rows_of_bars(content: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a text like PH2's: lines that begin and end with ``||``. A legend may follow them."""
    for number, line in enumerate(content.splitlines(), start=1):
        if line.startswith(_BAR):
            yield number, [field.strip() for field in re.split(r"\|\|?", line.strip())[1:-1]]


def _is_utf16(content: bytes) -> bool:
    return content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def _decode(content: bytes) -> tuple[str, str]:
    """The text of a table and its encoding. Raises ValueError, with the remedy, where the encoding is not certain.

    UTF-8, UTF-16 with its mark, or Windows-1252. Single bytes do not say their encoding. They are read where at most
    two letters outside ASCII stand together within a word, and each is the same letter in all of `_ENCODINGS`.
    """
    if _is_utf16(content):
        return content.decode("utf-16"), "UTF-16"
    try:
        return content.decode("utf-8-sig"), "UTF-8"
    except UnicodeDecodeError as error:
        if _IN_WORDS.sub(b"", content).isascii():
            return content.decode("cp1252"), "Windows-1252"
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(
            f"line {line} is not in UTF-8, and it is not certain which letters it has. Open it in the program that "
            "wrote it and save it as `CSV UTF-8`"
        ) from error


_ENCODINGS = ("cp1252", "cp1250", "cp1254", "cp1257", "iso8859-1", "iso8859-2", "iso8859-15")
_CERTAIN = bytes(
    byte
    for byte in range(0xA0, 0x100)
    if len({bytes([byte]).decode(encoding, "replace") for encoding in _ENCODINGS}) == 1
    and bytes([byte]).decode("cp1252").isalpha()
)
"""The bytes that are one and the same letter in all of them, such as ä, ö, ü, ß and é."""
_LETTERS = rb"(?<![\x80-\xff])[" + _CERTAIN + rb"]{1,2}(?![\x80-\xff])"
_IN_WORDS = re.compile(rb"(?<=[A-Za-z])" + _LETTERS + rb"|" + _LETTERS + rb"(?=[A-Za-z])")


def _with_point(field: str) -> str:
    match = _DECIMAL_COMMA.fullmatch(field.strip())
    return f"{match[1]}.{match[2]}" if match else field

"""Excel workbooks are read as the CSV that they would be, or refused where values would be lost in silence."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pandas as pd
import pytest
import yaml
from openpyxl import Workbook
from openpyxl.worksheet.worksheet import Worksheet

from melanoma_dist.data import excel
from melanoma_dist.data.rows import read_header, read_rows
from melanoma_dist.data.sources.described import DescribedSource
from melanoma_dist.data.sources.description import parse_description
from melanoma_dist.data.sources.proposal import propose

from .conftest import write_image
from .sources.clinic import prepared

HEADER = ("Bild", "Diagnose", "Patient", "Alter", "gesehen", "melanom")
ROWS = (
    ("a.jpg", "Nävus", 7, 40, date(2020, 1, 2), False),
    ("b.jpg", "Melanom", 7.0, 50.5, None, True),
    ("c.jpg", "Melanom", "P 8", None, None, True),
)


def workbook(path: Path, change: Callable[[Worksheet], object] = lambda sheet: None) -> Path:
    book = Workbook()
    sheet = book.active
    assert isinstance(sheet, Worksheet)
    for row in (HEADER, *ROWS):
        sheet.append(row)
    change(sheet)
    book.save(path)
    return path


def test_a_workbook_reads_as_its_csv(tmp_path: Path) -> None:
    path = workbook(tmp_path / "table.xlsx", lambda sheet: sheet.insert_rows(3))
    rows, delimiter, name = read_rows(path, strict=True)
    assert (delimiter, name) == ("", "an Excel workbook")
    assert read_header(path) == HEADER
    assert [number for number, _ in rows] == [1, 2, 4, 5]
    assert rows[1][1] == ["a.jpg", "Nävus", "7", "40", "2020-01-02", "0"]
    assert rows[2][1] == ["b.jpg", "Melanom", "7", "50.5", "", "1"]
    # pandas reads the same values.
    other = pd.read_excel(path, dtype=object).dropna(how="all")
    assert [row[1] for _, row in rows[1:]] == other["Diagnose"].to_list()
    assert [float(row[3] or "nan") for _, row in rows[1:]] == pytest.approx(other["Alter"].to_list(), nan_ok=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda sheet: sheet.merge_cells("C2:C3"), "the cells C2:C3 are merged"),
        (lambda sheet: sheet.cell(2, 4, "=2020-1980"), "cell D2 has a formula without a result"),
        (lambda sheet: sheet.parent.create_sheet("Klinik").append([1, 2, 3]), "the sheets Sheet, Klinik have content"),
        (lambda sheet: sheet.delete_rows(1, 9), "no visible sheet"),
    ],
)
def test_what_would_lose_values_is_refused(change: Callable[[Worksheet], object], message: str, tmp_path: Path) -> None:
    path = workbook(tmp_path / "table.xlsx", change)
    with pytest.raises(ValueError, match=message):
        read_rows(path)


def test_a_sheet_that_is_hidden_does_not_count(tmp_path: Path) -> None:
    def hide(sheet: Worksheet) -> None:
        lists = sheet.parent.create_sheet("lists")
        lists.append(["mel", "nv"])
        lists.sheet_state = "hidden"

    assert len(read_rows(workbook(tmp_path / "table.xlsx", hide)).rows) == 4


def zipped(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (bytes.fromhex("d0cf11e0a1b11ae1"), r"with a password, or of Excel until 2003 \(.xls\). Save it as .xlsx"),
        (b"PK\x03\x04", "corrupt or no workbook"),
        (zipped(word=b"a document"), "corrupt or no workbook"),
        (zipped(sheet=bytes(2 * excel._MOST_UNPACKED)), "unpacked it has 134217728 bytes"),
    ],
)
def test_what_is_no_workbook_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "table.xlsx"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_rows(path)
    assert read_header(path) == ()


def test_a_truncated_workbook_is_refused_wherever_it_ends(tmp_path: Path) -> None:
    whole = workbook(tmp_path / "table.xlsx").read_bytes()
    for end in range(4, len(whole), 97):
        (tmp_path / "table.xlsx").write_bytes(whole[:end])
        with pytest.raises(ValueError, match="corrupt or no workbook"):
            read_rows(tmp_path / "table.xlsx")


def test_a_data_set_is_prepared_from_a_workbook_as_it_is_proposed(tmp_path: Path, out: Path) -> None:
    path = workbook(tmp_path / "clinic.xlsx", lambda sheet: sheet.delete_cols(5, 2))
    for seed, (name, *_) in enumerate(ROWS):
        write_image(tmp_path / str(name), seed)
    description = yaml.safe_load(propose(path))
    assert description["table"] == "clinic.xlsx"
    assert description["labels"] == {"Nävus": "NV", "Melanom": "MEL"}
    images = prepared(tmp_path, out, DescribedSource(parse_description(description, "clinic.yaml"))).manifest
    assert images["MEL"].to_list() == [0, 1, 1]
    assert images["age"].to_list()[:2] == [40, 50.5]
    assert images["patient_id"].to_list() == ["7", "7", "P 8"]

"""Encodings of tables: those that are certain are read, all others refused with the line and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from melanoma_dist.data.rows import read_header, read_rows

TEXT = "Bild;Läsion;Größe\nscän-1;Nävus;3,5\n"


@pytest.mark.parametrize(
    ("encoding", "name"),
    [("utf-8", "UTF-8"), ("utf-8-sig", "UTF-8"), ("utf-16", "UTF-16"), ("cp1252", "Windows-1252")],
)
def test_a_table_of_a_spreadsheet_is_read_in_its_encoding(encoding: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(TEXT.encode(encoding))
    assert read_header(path) == ("Bild", "Läsion", "Größe")
    assert read_rows(path) == ([(1, ["Bild", "Läsion", "Größe"]), (2, ["scän-1", "Nävus", "3.5"])], ";", name)


@pytest.mark.parametrize(
    ("text", "encoding", "line"),
    [
        ("image,note\n1,à côté\n", "cp1252", 2),  # à is another letter in Prague
        ("Bild;Läsion\n1;Größe\n", "mac-roman", 1),
        ("id,снимок\n", "cp1251", 1),
        ("id,診断\n", "shift-jis", 1),
        ("image,note\n1,ok\n2,ö\n", "cp1252", 3),  # in no word
    ],
)
def test_other_bytes_are_refused_with_the_line_and_the_remedy(
    text: str, encoding: str, line: int, tmp_path: Path
) -> None:
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode(encoding))
    with pytest.raises(ValueError, match=rf"line {line} is not in UTF-8.*save it as `CSV UTF-8`"):
        read_rows(path)


def test_a_table_of_bars_ends_before_its_legend(tmp_path: Path) -> None:
    path = tmp_path / "table.txt"
    path.write_text("||  Name ||  Clinical || A | B ||\n|| IMD1 ||     || 0 | T ||\n\nLegend:\nA - x\n")
    rows = [(1, ["Name", "Clinical", "A", "B"]), (2, ["IMD1", "", "0", "T"])]
    assert read_rows(path) == (rows, "||", "UTF-8")
    assert read_header(path) == ("Name", "Clinical", "A", "B")

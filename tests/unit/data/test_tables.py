"""Entries of the challenges' tables are read as they are meant, or reported with file, line and rule."""

from __future__ import annotations

import re

import pytest

from melanoma_dist.data.tables import IdColumn, Problems, read_table
from melanoma_dist.errors import DataError

from .conftest import Raw
from .sources.test_isic import read


@pytest.mark.parametrize(
    ("text", "why"), [("", "is empty"), ("image,age_approx\n", " are missing"), ("{header}\n", "no row")]
)
@pytest.mark.parametrize("table", ["Metadata", "GroundTruth"])
def test_a_table_without_rows_is_called_empty(table: str, text: str, why: str, raw: Raw) -> None:
    raw.image_2019(1)
    path = raw.folder / f"2019/ISIC_2019_Training_{table}.csv"
    path.write_text(text.format(header=path.read_text().splitlines()[0]))
    with pytest.raises(DataError, match=rf"ISIC_2019_Training_{table}\.csv line 1: .*{why}"):
        read(raw, 2019)


def test_a_table_that_is_read_twice_counts_its_problems_once(raw: Raw) -> None:
    raw.image_2019(1)
    path = raw.folder / "2019/ISIC_2019_Training_Metadata.csv"
    path.write_text(path.read_text() + "wrong,55,head/neck,,female\n")
    problems = Problems()
    for _ in range(2):
        read_table(path, IdColumn("image", lambda text: text if text[0] == "I" else None, "is wrong"), (), problems)
    with pytest.raises(DataError, match=r"^1 wrong entry in the tables:\n  .* line 3: image 'wrong': is wrong\n"):
        problems.raise_any()


@pytest.mark.parametrize("name", ["ISIC_000000٣", "ISIC_000000²", "ıSIC_0000001", "I\u017fIC_0000001"])
def test_an_id_is_ascii(name: str, raw: Raw) -> None:
    raw.image_2017(1)
    raw.row("2017/ISIC-2017_Training_Part3_GroundTruth.csv", "", f"{name},0.0,0.0")
    with pytest.raises(DataError, match=f"image_id '{name}': must be ISIC_ and seven digits"):
        read(raw, 2017)


@pytest.mark.parametrize("age", ["1_0", "-nan", "inf", "-5", "-0.0", "5e1", "٣٠", "121", "0x10", "."])
def test_an_age_is_a_plain_number(age: str, raw: Raw) -> None:
    raw.image_2019(1)
    path = raw.folder / "2019/ISIC_2019_Training_Metadata.csv"
    path.write_text(path.read_text().replace(",55,", f",{age},"))
    with pytest.raises(DataError, match=re.escape(f"age_approx '{age}': must be an age of 0 to 120 years")):
        read(raw, 2019)


@pytest.mark.parametrize(("text", "age"), [("0", 0), ("85.0", 85), ("85.", 85), ("120", 120)])
def test_valid_ages_are_read(text: str, age: float, raw: Raw) -> None:
    raw.image_2019(1)
    path = raw.folder / "2019/ISIC_2019_Training_Metadata.csv"
    path.write_text(path.read_text().replace(",55,", f",{text},"))
    assert list(read(raw, 2019).records["age"]) == [age]

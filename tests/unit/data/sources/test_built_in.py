"""The built-in collections, from folders as they are published; and what is said of a wrong value in each."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from melanoma_dist.cli import main
from melanoma_dist.data.manifest import Dataset, load_dataset
from melanoma_dist.data.sources import description
from melanoma_dist.data.sources.described import DescribedSource
from melanoma_dist.data.sources.description import BUILT_IN, read_description
from melanoma_dist.data.sources.registry import read_collections
from melanoma_dist.errors import DataError

from .published import LAYOUTS, needs_isic

pytestmark = needs_isic
COMMAND = ["data", "prepare", "--allow-incomplete-tables", "--size", "48"]


def prepared(name: str, raw: Path, out: Path) -> Dataset:
    assert main([*COMMAND, "--source", name, "--raw", str(raw), "--out", str(out)]) == 0
    return load_dataset(out)


@pytest.mark.parametrize(
    ("name", "splits", "positives"),
    [
        ("ph2", {"train": 32}, {"MEL": 16, "NV": 16}),
        ("derm7pt", {"train": 16, "derm7pt-test": 8, "derm7pt-validation": 8}, {"MEL": 16, "NV": 16}),
        ("padufes20", {"train": 36}, {"MEL": 12, "NV": 12, "BCC": 12}),
        ("bcn20000", {"train": 36}, {"MEL": 12, "NV": 12, "VASC": 12}),
        ("ham10000", {"train": 36, "ham10000-test": 2}, {"MEL": 12, "NV": 14, "VASC": 12}),
        ("isic2020", {"train": 36}, {"MEL": 12, "NV": 12, "BKL": 12}),
    ],
)
def test_a_published_layout_is_prepared(
    name: str, splits: dict[str, int], positives: dict[str, int], tmp_path: Path, out: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    LAYOUTS[name](tmp_path / "raw")
    dataset = prepared(name, tmp_path / "raw", out)
    images = dataset.manifest
    assert images["split"].value_counts().to_dict() == splits
    assert images[list(positives)].sum().astype(int).to_dict() == positives
    assert set(dataset.terms) == {name}
    output = capsys.readouterr().out
    assert ("CLINICAL photographs" in output) == (name == "padufes20")
    assert f"`counts` says {read_description(Path(name)).counts['images']} images" in dataset.incomplete_tables[-2]


def test_the_masks_of_ph2_are_masks_and_its_photographs_images(tmp_path: Path, out: Path) -> None:
    LAYOUTS["ph2"](tmp_path / "raw")
    assert prepared("ph2", tmp_path / "raw", out).manifest["mask_length"].gt(0).all()


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("ph2", " 2 ||", " 7 ||", r"PH2_dataset\.txt line 18: Clinical Diagnosis '7': is not in `labels`"),
        ("derm7pt", "clark nevus", "clerk nevus", r"meta\.csv line 18: diagnosis 'clerk nevus': is not in `labels`"),
        ("derm7pt", ",back,", ",tail,", r"meta\.csv line 2: location 'tail': must be one of"),
        ("padufes20", ",40,", ",400,", r"metadata\.csv line 2: age '400': must be an age of 0 to 120"),
        ("padufes20", "gender", "gendre", "the column gender is missing. Did you mean: gendre for gender"),
        ("bcn20000", "Nevus", "Naevus", r"metadata\.csv line 14: diagnosis_3 'Naevus': is not in `labels`"),
        ("ham10000", "ISIC_00360", "ISIC_X0360", r"metadata\.csv line 38: isic_id 'ISIC_X036000': must be ISIC_ and"),
        ("isic2020", ",nevus,", ",nevis,", r"GroundTruth\.csv line 14: diagnosis 'nevis': is not in `labels`"),
    ],
)
def test_a_wrong_value_is_told_with_file_line_and_column(
    name: str, old: str, new: str, message: str, tmp_path: Path
) -> None:
    LAYOUTS[name](tmp_path)
    stem = Path(read_description(Path(name)).table).name
    table = next(tmp_path.rglob(stem))
    table.write_text(table.read_text().replace(old, new))
    with pytest.raises(DataError, match=message):
        read_collections(tmp_path, (), True, (DescribedSource(read_description(Path(name))),))


def test_a_row_beyond_the_table_in_a_list_is_told(tmp_path: Path) -> None:
    LAYOUTS["derm7pt"](tmp_path)
    table = next(tmp_path.rglob("test_indexes.csv"))
    table.write_text(table.read_text() + "32\n")
    with pytest.raises(DataError, match=r"test_indexes\.csv line 10: indexes '32': must be a row, 0 to 31"):
        read_collections(tmp_path, (), True, (DescribedSource(read_description(Path("derm7pt"))),))


def test_one_more_collection_is_one_file(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    LAYOUTS["padufes20"](tmp_path / "raw")
    text = BUILT_IN["padufes20"].read_text()
    own = tmp_path / "smartphones.yaml"
    own.write_text(re.sub(r"^counts.*$", "", text.replace("name: padufes20", "name: smartphones"), flags=re.MULTILINE))
    monkeypatch.setattr(description, "BUILT_IN", {**BUILT_IN, "smartphones": own})
    dataset = prepared("smartphones", tmp_path / "raw", out)
    assert set(dataset.manifest["years"]) == {"smartphones"}
    assert not dataset.incomplete_tables


def test_every_description_has_licence_citation_and_counts() -> None:
    for name in BUILT_IN:
        about = read_description(Path(name))
        assert (about.name, bool(about.licence and about.citation)) == (name, True)
        assert about.counts["images"] > 0

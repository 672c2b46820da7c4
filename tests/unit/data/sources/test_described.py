"""A collection described as data: its table, images and words, and what is said about each mistake in them."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from melanoma_dist.cli import main
from melanoma_dist.data.audit.checks import manifest_checks, require
from melanoma_dist.data.labels import LABEL_COLUMNS
from melanoma_dist.data.manifest import JOINS, fingerprint, load_dataset, read_side_table
from melanoma_dist.data.prepare import Request, prepare
from melanoma_dist.data.sources.described import DescribedSource, label_values
from melanoma_dist.data.sources.description import parse_description
from melanoma_dist.data.sources.registry import read_collections
from melanoma_dist.errors import DataError

from ..conftest import Raw, write_image, write_mask, write_table
from .clinic import CLINIC, COLUMNS, ROWS, clinic, prepared


def test_the_ids_labels_groups_and_splits_of_a_clinic_reach_the_manifest(tmp_path: Path, out: Path) -> None:
    dataset = prepared(tmp_path, out, clinic(tmp_path))
    images = dataset.manifest.set_index("image_id")
    assert list(images.index) == ["scan 1", "scan 2.v2", "ü-3", "ü-4"]
    assert images["split"].to_list() == ["train", "train", "clinic-test", "train"]
    assert images["patient_id"].to_list() == ["P1", "P1", "P2", "P3"]
    assert images["group"].nunique() == 3
    positives = images[list(LABEL_COLUMNS)].apply(lambda row: [label for label in row.index if row[label] == 1], axis=1)
    assert positives.to_list() == [["MEL"], ["NV"], [], []]
    assert images.loc["ü-3", list(LABEL_COLUMNS)].eq(0).all()
    assert images.loc["ü-4", list(LABEL_COLUMNS)].isna().all()
    require(manifest_checks(dataset.manifest, read_side_table(dataset, JOINS)))
    with tarfile.open(out / "shard-00000.tar") as shard:
        assert shard.getnames() == ["scan 1.jpg", "scan 2%2Ev2.jpg", "ü-3.jpg", "ü-4.jpg"]


def test_columns_of_0_and_1_say_nothing_about_other_labels_unless_one_is_1(tmp_path: Path) -> None:
    source = clinic(
        tmp_path,
        columns={"id": "file", "lesion": "lesion"},
        labels={"mel": "MEL", "sk": "BKL", "other": "none"},
        holdouts=[],
    )
    write_table(
        tmp_path / "lesions.csv", "file,lesion,mel,sk,other", "scan 1,1,1,0,0", "scan 2.v2,2,0,0,0", "ü-3,3,0,,0",
        "ü-4,4,0,0,1",
    )  # fmt: skip
    [collection] = read_collections(tmp_path, (), described=(source,))
    table = collection.records.set_index("image_id")[list(LABEL_COLUMNS)]
    assert table.loc["scan 1"].to_dict() == dict.fromkeys(LABEL_COLUMNS, 0.0) | {"MEL": 1.0}
    assert table.loc["scan 2.v2"].dropna().to_dict() == {"MEL": 0.0, "BKL": 0.0}
    assert table.loc["ü-3"].dropna().to_dict() == {"MEL": 0.0}
    assert table.loc["ü-4"].eq(0).all()


@pytest.mark.parametrize(
    ("meaning", "known"),
    [
        ("AK", dict.fromkeys(LABEL_COLUMNS, 0.0) | {"AK": 1.0, "AKIEC": 1.0}),
        ("AKIEC", {name: float(name == "AKIEC") for name in LABEL_COLUMNS if name not in ("AK", "SCC")}),
        ("not MEL", {"MEL": 0.0}),
        ("not AKIEC", {"AK": 0.0, "SCC": 0.0, "AKIEC": 0.0}),
        ("unknown", {}),
    ],
)
def test_a_word_decides_the_labels_that_it_speaks_of(meaning: str, known: dict[str, float]) -> None:
    assert pd.Series(label_values(meaning)).dropna().to_dict() == known


def test_equal_ids_of_two_clinics_are_two_images_and_a_copied_photograph_joins_them(tmp_path: Path, out: Path) -> None:
    one = clinic(tmp_path / "one", images=["one"], table="one/lesions.csv")
    two = clinic(tmp_path / "two", name="other", images=["two"], table="two/lesions.csv")
    write_image(tmp_path / "two/photos/scan 1.JPG", 500, format="JPEG")
    write_image(tmp_path / "two/photos/ü-3.jpg", 501, format="JPEG")
    dataset = prepared(tmp_path, out, one, two)
    images = dataset.manifest.set_index("image_id")
    assert len(images) == 8
    assert {name.partition(":")[0] for name in images.index} == {"clinic", "other"}
    assert images.loc["clinic:scan 1", "patient_id"] == "clinic:P1"
    # The first photographs differ, but another one of the same two patients is one file.
    assert images.loc["clinic:scan 1", "group"] == images.loc["other:scan 1", "group"]
    # Patient P2 of both has no photograph in common: two patients of one name.
    assert images.loc["clinic:ü-3", "group"] != images.loc["other:ü-3", "group"]
    joins = read_side_table(dataset, JOINS)
    assert set(joins.loc[joins["joined"], "reason"]) == {"patient", "same bytes"}
    assert images.loc["other:ü-4", "group"] == images.loc["clinic:ü-4", "group"]
    require(manifest_checks(dataset.manifest, joins))


def test_ids_of_the_archive_are_merged_with_the_challenges(tmp_path: Path, raw: Raw, out: Path) -> None:
    raw.image_2019(3, "MEL", lesion="L3")
    write_table(
        raw.folder / "own.csv", "isic_id,melanoma,patient_id", "ISIC_0000003_downsampled,1,P1", "isic_0000004,0,P1"
    )
    write_image(raw.folder / "more/ISIC_0000004.jpg", 9)
    columns = {"id": "isic_id", "patient": "patient_id"}
    tree = {"name": "more", "table": "own.csv", "columns": columns, "labels": {"melanoma": "MEL"}, "archive": True}
    source = DescribedSource(parse_description(tree, "more.yaml"))
    images = prepare(Request(raw.folder, ("2019",), sources=(source,), size=32), out).manifest
    assert images["image_id"].to_list() == ["ISIC_0000003", "ISIC_0000004"]
    assert images["years"].to_list() == ["more+2019", "more"]
    assert images["group"].nunique() == 1


def test_masks_lie_beside_their_images(tmp_path: Path, out: Path) -> None:
    write_mask(tmp_path / "photos/masks/ü-3_mask.png")
    source = clinic(tmp_path, masks={"folder": "masks", "suffix": "_mask"})
    images = prepared(tmp_path, out, source).manifest
    assert images.loc[images["mask_length"] > 0, "image_id"].to_list() == ["ü-3"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "my clinic"}, "clinic.yaml: name 'my clinic': must be 1 to 40 letters"),
        ({"colums": {}}, "clinic.yaml: colums {}: is no field; .* Did you mean: columns"),
        ({"table": None}, "clinic.yaml: table None: is missing"),
        ({"columns": {"label": "dx"}}, "clinic.yaml: columns.id None: is missing"),
        ({"columns": {**COLUMNS, "ages": "x"}}, "clinic.yaml: columns.ages 'x': is no field"),
        ({"labels": {}}, "clinic.yaml: labels {}: must name at least one label"),
        ({"labels": {"mel": "melanoma"}}, "clinic.yaml: labels.mel 'melanoma': must be one of MEL NV .*Choose"),
        ({"labels": {"Mel": "MEL", "mel": "NV"}}, "clinic.yaml: labels.mel 'NV': is there twice"),
        ({"labels": ["MEL"]}, "clinic.yaml: labels: must hold names with values"),
        ({"holdouts": ["a+b"]}, "clinic.yaml: holdouts 'a.b': must be 1 to 40 letters"),
        ({"holdouts": []}, "clinic.yaml: holdouts ..: must name the values of the column split"),
        ({"holdouts": ["train"]}, "clinic.yaml: holdouts 'train': is the name of what folds train on"),
        ({"columns": {"id": "file"}}, "clinic.yaml: holdouts .'test'.: needs the column split"),
        ({"words": {"sex": {"w": "woman"}}}, "clinic.yaml: words.sex.w 'woman': must be one of female, male, unknown"),
        ({"archive": "no"}, "clinic.yaml: archive 'no': must be true or false"),
        ({"counts": {"images": "4"}}, "clinic.yaml: counts.images '4': must be a whole number"),
        ({"masks": {"suffix": "x"}}, "clinic.yaml: masks.folder None: is missing"),
    ],
)
def test_a_wrong_value_of_a_description_is_named_with_its_rule(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        parse_description({**CLINIC, **change}, "clinic.yaml")


def test_all_words_without_a_meaning_are_listed_with_their_counts(tmp_path: Path, out: Path) -> None:
    rows = (*ROWS, *(f"x{number},scar,L9,P9,train" for number in range(3)), "y,Wart,L9,P9,train")
    with pytest.raises(
        DataError, match=r"lesions.csv line 6: dx 'scar': .* 'scar' \(3\), 'Wart' \(1\)\. Give each"
    ) as caught:
        prepared(tmp_path, out, clinic(tmp_path, *rows))
    assert "line 9 'Wart'" in str(caught.value)


@pytest.mark.parametrize(
    ("rows", "changes", "message"),
    [
        (("scan 1,mel,L1,P1,train", "photos/scan 1.JPG,mel,L1,P1,train"), {}, "line 3: file .* earlier line already"),
        ((" .jpg,mel,L1,P1,test",), {}, "must be a file name: printable text"),
        (("scan 9,mel,L1,P1,test",), {}, "1 of 1 labelled images have no file below .*clinic: 1 .scan 9"),
        ((), {"columns": {**COLUMNS, "age": "years"}}, "line 1: header .* the column years is missing"),
        ((), {"columns": {"id": "file", "label": "dx"}, "holdouts": []}, "no column says which images show one lesion"),
        ((), {"counts": {"images": 5}}, "4 images; `counts` says 5 images"),
        ((), {"images": ["pictures"]}, "has no folder pictures. Images there: 4 in photos"),
        ((), {"table": "other.csv"}, "collection clinic: there is no table other.csv .*Tables there: lesions.csv"),
        ((), {"name": "2019"}, "two collections have the name 2019"),
    ],
)  # fmt: skip
def test_a_mistake_in_table_or_folders_is_told(
    tmp_path: Path, out: Path, rows: tuple[str, ...], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(DataError, match=message):
        prepared(tmp_path, out, clinic(tmp_path, *rows, **changes))


def test_two_different_files_of_one_name_are_refused_and_equal_ones_are_not(tmp_path: Path, out: Path) -> None:
    source = clinic(tmp_path)
    write_image(tmp_path / "photos/old/ü-3.jpg", 102)
    assert len(prepared(tmp_path, out, source).manifest) == 4
    write_image(tmp_path / "photos/old/ü-3.jpg", 7)
    with pytest.raises(DataError, match=r"ü-3 is the name of 2 different files: photos/ü-3.jpg, photos/old/ü-3.jpg"):
        read_collections(tmp_path, (), described=(source,))


def test_an_own_label_is_a_column_of_the_manifest_and_of_its_fingerprint(tmp_path: Path, out: Path, raw: Raw) -> None:
    raw.image_2019(3, "MEL", lesion="L3")
    source = clinic(raw.folder, labels={**CLINIC["labels"], "eczema": "ECZEMA"})
    dataset = prepare(Request(raw.folder, ("2019",), sources=(source,), size=32), out)
    images = dataset.manifest.set_index("image_id")
    assert images["ECZEMA"].dropna().to_dict() == {"scan 1": 0.0, "scan 2.v2": 0.0, "ü-3": 1.0}
    assert images.loc["ü-3", list(LABEL_COLUMNS)].eq(0).all()
    assert load_dataset(out).fingerprint == dataset.fingerprint
    other = dataset.manifest.assign(ECZEMA=0.0)
    assert fingerprint(other, 32) != dataset.fingerprint
    require(manifest_checks(dataset.manifest, read_side_table(dataset, JOINS)))


def test_images_without_a_patient_are_refused_unless_accepted(tmp_path: Path, out: Path) -> None:
    source = clinic(tmp_path, "scan 1,mel,L1,P1,train", "scan 2.v2,NAEVUS,L2,,train", *ROWS[2:])
    with pytest.raises(DataError, match=r"patient is blank for 1 of 4 images: their patient is unknown"):
        prepared(tmp_path, out, source)
    dataset = prepared(tmp_path, out, source, allow_incomplete_tables=True)
    assert "patient is blank for 1 of 4 images" in dataset.incomplete_tables[0]


def test_licence_and_citation_stay_with_the_data_set(tmp_path: Path, out: Path) -> None:
    dataset = prepared(tmp_path, out, clinic(tmp_path, licence="CC BY 4.0", citation="Doe 2025"))
    assert load_dataset(out).terms == {"clinic": "licence CC BY 4.0; cite Doe 2025"} == dataset.terms


def test_isic_2020_is_built_in_with_its_patients_and_its_list_of_copies(raw: Raw, out: Path) -> None:
    header = "image_name,patient_id,sex,age_approx,anatom_site_general_challenge,diagnosis,benign_malignant,target"
    rows = (
        "ISIC_2637011,IP_1,male,45.0,head/neck,unknown,benign,0",
        "ISIC_0015719,IP_2,female,45.0,upper extremity,melanoma,malignant,1",
        "ISIC_0052212,IP_1,female,50.0,torso,nevus,benign,0",
        "ISIC_0068279,IP_3,,,,solar lentigo,benign,0",
    )
    write_table(raw.folder / "2020/ISIC_2020_Training_GroundTruth.csv", header, *rows)
    for row in rows:
        write_image(raw.folder / "2020/train" / f"{row[:12]}.jpg", int(row[5:12]))
    command = ["data", "prepare", "--source", "isic2020", "--raw", str(raw.folder), "--out", str(out)]
    assert main(command) == 2  # without the list of copies
    copies = ("ISIC_0015719,ISIC_0068279", "ISIC_0015719,ISIC_9999999")
    write_table(raw.folder / "2020/ISIC_2020_Training_Duplicates.csv", "image_name_1,image_name_2", *copies)
    assert main(command) == 2  # four images are not the official ones
    assert main([*command, "--allow-incomplete-tables"]) == 0
    dataset = load_dataset(out)
    images = dataset.manifest.set_index("image_id")
    assert images.loc["ISIC_2637011", list(LABEL_COLUMNS)].dropna().to_dict() == {"MEL": 0.0}
    assert images[["MEL", "NV", "BKL"]].sum().to_list() == [1, 1, 1]
    assert images.loc["ISIC_0015719", "group"] == images.loc["ISIC_0068279", "group"]
    assert images.loc["ISIC_2637011", "group"] == images.loc["ISIC_0052212", "group"]
    assert images["group"].nunique() == 2
    joins = read_side_table(dataset, JOINS)
    assert set(joins.loc[joins["joined"], "reason"]) == {"patient", "listed copy"}
    require(manifest_checks(dataset.manifest, joins))
    assert dataset.incomplete_tables[0].endswith("4 images, 3 patients; `counts` says 33126 images, 2056 patients.")


def test_a_holdout_that_no_row_has_is_an_error_instead_of_training_images(tmp_path: Path, out: Path) -> None:
    message = "set 'Test': is named in `holdouts`, and no row has it. Rows have 'train' (3), 'test' (1)"
    with pytest.raises(DataError, match=re.escape(message)):
        prepared(tmp_path, out, clinic(tmp_path, holdouts=["Test"]))
    rows = (*ROWS, "scan 5,mel,L5,P5,Test")
    with pytest.raises(DataError, match=r"line 6: set 'Test': is not 'test', which `holdouts` names"):
        prepared(tmp_path, out, clinic(tmp_path, *rows))

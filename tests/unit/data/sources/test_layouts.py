"""Files are found by what they are: the folders, names and CSVs that people have after downloading and unpacking."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from melanoma_dist.data.manifest import Dataset
from melanoma_dist.data.merge import merge_collections
from melanoma_dist.data.prepare import Request, prepare
from melanoma_dist.data.sources.registry import read_collections
from melanoma_dist.errors import DataError

from ..conftest import Raw, write_image

TRUTH = "2018/ISIC2018_Task3_Training_GroundTruth/ISIC2018_Task3_Training_GroundTruth.csv"
GROUPINGS = "2018/ISIC2018_Task3_Training_LesionGroupings.csv"
INPUT = "2018/ISIC2018_Task3_Training_Input"
HAM = "HAM10000_metadata.csv"
IDS = [f"ISIC_{24306 + number:07d}" for number in range(8)]


@pytest.fixture
def small(raw: Raw) -> Raw:
    """Eight images of four lesions of 2018."""
    for number in range(8):
        label = "MEL" if number < 4 else "NV"
        raw.image_2018(24306 + number, label, lesion=f"HAM_{number // 2}", seed=number)
    return raw


def move(raw: Path, old: str, new: str) -> None:
    (raw / new).parent.mkdir(parents=True, exist_ok=True)
    (raw / old).rename(raw / new)


def deeper(raw: Path) -> None:
    move(raw, INPUT, "aside")
    move(raw, "aside", f"{INPUT}/images")


def year_itself(raw: Path) -> None:
    for path in list((raw / "2018").iterdir()):
        move(raw, f"2018/{path.name}", path.name)


def downloaded_twice(raw: Path) -> None:
    shutil.copy(raw / TRUTH, raw / f"2018/{Path(TRUTH).stem} (1).csv")


def nested(raw: Path) -> None:
    """As Windows' "Extract all" leaves each archive."""
    move(raw, INPUT, "aside")
    move(raw, "aside", f"{INPUT}/ISIC2018_Task3_Training_Input")
    move(raw, TRUTH, TRUTH.replace("/ISIC2018", "/ISIC2018_Task3_Training_GroundTruth/ISIC2018", 1))


def half_nested(raw: Path) -> None:
    for name in IDS[:4]:
        move(raw, f"{INPUT}/{name}.jpg", f"{INPUT}/ISIC2018_Task3_Training_Input/{name}.jpg")


def empty_namesake(raw: Path) -> None:
    (raw / INPUT / "ISIC2018_Task3_Training_Input").mkdir()


def kaggle(raw: Path) -> None:
    for number, name in enumerate(IDS):
        move(raw, f"{INPUT}/{name}.jpg", f"HAM10000_images_part_{1 + number % 2}/{name}.jpg")
    rows = [f"HAM_{n // 2},{name},{'mel' if n < 4 else 'nv'},histo,{50 + n}.0,male,back" for n, name in enumerate(IDS)]
    (raw / HAM).write_text("\n".join(("lesion_id,image_id,dx,dx_type,age,sex,localization", *rows)) + "\n")
    shutil.rmtree(raw / "2018")


def kaggle_twice(raw: Path) -> None:
    """Kaggle's archive has every image in two folders."""
    kaggle(raw)
    shutil.copytree(raw / "HAM10000_images_part_1", raw / "ham10000_images_part_1")


def isic_cli(raw: Path) -> None:
    kaggle(raw)
    (raw / HAM).unlink()
    for path in raw.rglob("*.jpg"):
        move(raw, path.relative_to(raw).as_posix(), f"images/{path.name}")
    header = "isic_id,attribution,age_approx,anatom_site_general,diagnosis_1,diagnosis_2,diagnosis_3,lesion_id,sex"
    rows = [
        f"{name},ViDIR,55,,x,y,{'Melanoma, NOS' if n < 4 else 'Nevus'},IL_{n // 2},male".replace(
            "Melanoma, NOS", '"Melanoma, NOS"'
        )
        for n, name in enumerate(IDS)
    ]
    (raw / "metadata.csv").write_text("\n".join((header, *rows, "ISIC_0000001,x,55,,x,y,Nevus,IL_9,male")) + "\n")


LAYOUTS: dict[str, Callable[[Path], None]] = {
    "as published": lambda raw: None,
    "nested": nested,
    "half nested": half_nested,
    "empty folder of the same name": empty_namesake,
    "images one folder deeper": deeper,
    "groupings inside the folder of the truth": lambda raw: move(raw, GROUPINGS, f"{TRUTH[:41]}/{GROUPINGS[5:]}"),
    "truth beside the images": lambda raw: move(raw, TRUTH, f"{INPUT}/ISIC2018_Task3_Training_GroundTruth.csv"),
    "second download": lambda raw: move(raw, TRUTH, "2018/ISIC2018_Task3_Training_GroundTruth (1).csv"),
    "downloaded twice": downloaded_twice,
    "another name": lambda raw: move(raw, TRUTH, "2018/train_labels.csv"),
    "folder ISIC2018": lambda raw: move(raw, "2018", "ISIC2018"),
    "the year itself": year_itself,
    "images in Kaggle's folders": lambda raw: move(raw, INPUT, "HAM10000_images_part_1"),
    "Kaggle": kaggle,
    "Kaggle with every image twice": kaggle_twice,
    "isic-cli": isic_cli,
}  # fmt: skip


def prepared(raw: Raw, out: Path) -> Dataset:
    return prepare(Request(raw.folder, ("2018",), size=24), out)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_same_data(
    layout: str, small: Raw, out: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    LAYOUTS[layout](small.folder)
    images = prepared(small, out).manifest.set_index("image_id")
    assert list(images.index) == IDS
    assert list(images["MEL"]) == [1.0] * 4 + [0.0] * 4
    assert list(images["NV"]) == [0.0] * 4 + [1.0] * 4
    assert images.groupby("group").size().to_list() == [2] * 4
    assert images["lesion_id"].notna().all()
    printed = " ".join(capsys.readouterr().out.split())
    assert "2018: train: labels from " in printed
    assert "images: " in printed


def test_kaggle_knows_age_and_sex(small: Raw) -> None:
    kaggle(small.folder)
    records = read_collections(small.folder, ("2018",))[0].records
    assert list(records["age"]) == [50.0 + number for number in range(8)]
    assert set(records["sex"]) == {"male"}


def test_the_test_set_of_2018_is_read_as_its_authors_publish_it(small: Raw) -> None:
    kaggle(small.folder)
    rows = ("lesion_id,image_id,dx,dx_type,age,sex,localization", "HAM_9,ISIC_0034524,bkl,histo,50,male,back")
    (small.folder / "ISIC2018_Task3_Test_GroundTruth.csv").write_text("\n".join(rows) + "\n")
    collection = read_collections(small.folder, ("2018",))[0]
    records = collection.records.set_index("image_id")
    assert records.loc["ISIC_0034524", ["split", "BKL", "MEL", "lesion_id"]].to_list() == ["2018-test", 1, 0, "HAM_9"]
    assert records["split"].value_counts().to_dict() == {"train": 8, "2018-test": 1}
    assert collection.gaps == ()


def test_a_table_of_labels_that_is_not_used_is_noted(raw: Raw) -> None:
    """It may be the test set of 2017, which 2019's training set contains."""
    raw.image_2017(1)
    raw.image_2017(2, part="Test_v2")
    (table,) = raw.folder.rglob("*Test_v2_Part3*.csv")
    table.rename(raw.folder / "2017/truth.csv")
    notes = read_collections(raw.folder, ("2017",))[0].notes
    assert [note for note in notes if note.startswith("does not use 2017/truth.csv, which has the columns of labels")]


def test_a_diagnosis_that_is_no_class_of_2018_is_told(small: Raw) -> None:
    kaggle(small.folder)
    table = small.folder / HAM
    table.write_text(table.read_text().replace(",nv,", ",wart,"))
    with pytest.raises(DataError, match=r"dx 'wart': is not one of the classes MEL, NV.*\(also line 7 'wart'"):
        read_collections(small.folder, ("2018",))


@pytest.mark.parametrize("table", [TRUTH, HAM])
def test_a_named_table_without_the_needed_columns_is_told(table: str, small: Raw) -> None:
    if table == HAM:
        kaggle(small.folder)
    path = small.folder / table
    path.write_text(path.read_text().replace("image", "picture", 1))
    with pytest.raises(DataError, match=r"the columns? image(_id)?.* (is|are) missing|holds no labels of ISIC 2018"):
        read_collections(small.folder, ("2018",))


def test_a_table_of_another_collection_of_the_archive_disturbs_no_year(raw: Raw) -> None:
    raw.image_2019(1)
    rows = ("isic_id,diagnosis,lesion_id", "ISIC_0000003,wart,IL_1")
    (raw.folder / "metadata.csv").write_text("\n".join(rows) + "\n")
    collections = read_collections(raw.folder, ("2019",))
    assert [(each.name, len(each.records)) for each in collections if each.selected] == [("2019", 1)]
    assert len(merge_collections(collections)) == 1
    with pytest.raises(DataError, match=r"holds no labels of ISIC 2018"):
        read_collections(raw.folder, ("2018",))


def test_images_that_no_row_needs_and_files_of_systems_are_left_alone(small: Raw, out: Path) -> None:
    write_image(small.folder / "__MACOSX/._ISIC_0024306.jpg")
    write_image(small.folder / ".cache/ISIC_0024306.jpg", seed=99, size=(200, 200))
    write_image(small.folder / f"elsewhere/{IDS[0]}.jpg", seed=99, size=(200, 200))
    images = prepared(small, out).manifest
    assert images["source"][0] == f"{INPUT}/{IDS[0]}.jpg"  # the year's own folder comes first


def test_links_that_lead_in_a_circle_end(small: Raw, out: Path) -> None:
    (small.folder / "2018/again").symlink_to(small.folder)
    assert len(prepared(small, out).manifest) == 8


def test_two_different_tables_are_refused_with_both_names(small: Raw) -> None:
    other = small.folder / f"2018/{Path(TRUTH).stem} (1).csv"
    pd.read_csv(small.folder / TRUTH).head(3).to_csv(other, index=False)
    with pytest.raises(DataError, match=r"2 different tables could be .*\(1\).csv.*Move all but one"):
        read_collections(small.folder, ("2018",))


def test_a_missing_table_lists_what_lies_there_and_the_nearest(small: Raw) -> None:
    table = pd.read_csv(small.folder / TRUTH)
    (small.folder / TRUTH).unlink()
    table.drop(columns=["DF"]).to_csv(small.folder / "2018/train.csv", index=False)
    with pytest.raises(DataError) as caught:
        read_collections(small.folder, ("2018",))
    text = str(caught.value)
    assert "Looked for ISIC2018_Task3_Training_GroundTruth.csv" in text
    assert "Tables found: 2018/train.csv (lacks DF), " in text
    assert f"Images found: 8 in {INPUT}" in text


def test_missing_images_list_those_that_lie_there(small: Raw, out: Path) -> None:
    for path in (small.folder / INPUT).iterdir():
        path.rename(path.with_name(f"IMG_{path.name[-7:]}"))
    with pytest.raises(DataError, match=rf"ISIC_0024306, .*Images found there: 8 in {INPUT}"):
        prepared(small, out)


def as_file_names(text: str) -> str:
    header, *rows = text.splitlines()
    return "\n".join((header, *(f"{row[:12]}.jpg{row[12:]}" for row in rows))) + "\n"


SPREADSHEETS: dict[str, Callable[[str], str]] = {
    "semicolons and decimal commas": lambda text: text.replace(",", ";").replace(".0", ",0"),
    "an unnamed index": lambda text: "\n".join(f"{n or ''},{row}" for n, row in enumerate(text.splitlines())),
    "file names": as_file_names,
    "empty rows at the end": lambda text: text + (("," * text.splitlines()[0].count(",")) + "\n") * 3,
}
REMARKS = {
    "semicolons and decimal commas": "read semicolons between the fields",
    "an unnamed index": "ignored 1 columns without a name",
    "file names": "read 8 file names in the column image as image ids",
    "empty rows at the end": "ignored 3 empty rows",
}


@pytest.mark.parametrize("kind", REMARKS)
def test_tables_of_spreadsheets_are_read_with_a_remark(kind: str, small: Raw) -> None:
    expected = read_collections(small.folder, ("2018",))[0].records
    for table in (TRUTH, GROUPINGS):
        path = small.folder / table
        path.write_text(SPREADSHEETS[kind](path.read_text()))
    collection = read_collections(small.folder, ("2018",))[0]
    pd.testing.assert_frame_equal(collection.records, expected)
    assert len([remark for remark in collection.remarks if REMARKS[kind] in remark]) == 2


def test_one_cause_is_one_line(small: Raw) -> None:
    path = small.folder / TRUTH
    path.write_text(path.read_text().replace("ISIC_00", ""))
    with pytest.raises(DataError) as caught:
        read_collections(small.folder, ("2018",))
    assert str(caught.value).startswith("8 wrong entries")
    lines = [line for line in str(caught.value).splitlines() if "ISIC_ and seven" in line]
    assert len(lines) == 1
    assert "'24306'" in lines[0]
    assert "4 more" in lines[0]


def test_the_test_truth_of_2019_is_read_as_published(raw: Raw) -> None:
    raw.image_2019(1, "MEL", "Test")
    table = raw.folder / "2019/ISIC_2019_Test_GroundTruth.csv"
    header, row = table.read_text().splitlines()
    table.write_text(f"{header},score_weight,validation_weight\n{row},1.0,0.0\n")
    collection = read_collections(raw.folder, ("2019",))[0]
    assert list(collection.records["split"]) == ["2019-test"]
    assert any("does not use the columns score_weight, validation_weight" in remark for remark in collection.remarks)

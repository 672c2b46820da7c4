"""The sources 2017, 2018 and 2019, and how they complete each other."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from melanoma_dist.data.labels import LABEL_COLUMNS
from melanoma_dist.data.merge import merge_collections, merge_files, merge_masks
from melanoma_dist.data.sources.registry import read_collections
from melanoma_dist.data.sources.source import Collection
from melanoma_dist.errors import DataError

from ...hostile import fuzz_reader
from ..conftest import Raw, write_image, write_table


def read(raw: Raw, year: int) -> Collection:
    return read_collections(raw.folder, (str(year),))[0]


def labels(table: pd.DataFrame, image_id: str) -> dict[str, float]:
    """The labels of an image that are not 0."""
    row = table.set_index("image_id").loc[image_id, list(LABEL_COLUMNS)]
    return {name: float(value) for name, value in row.items() if value != 0}


def test_2017_has_melanoma_keratosis_and_nevus(raw: Raw) -> None:
    ids = [raw.image_2017(1, "MEL"), raw.image_2017(2, "BKL", "Validation"), raw.image_2017(3, "NV", "Test_v2")]
    (raw.folder / "2017/ISIC-2017_Training_Data/ISIC_0000001_superpixels.png").write_bytes(b"superpixels")
    metadata = "2017/ISIC-2017_Training_Data/ISIC-2017_Training_Data_metadata.csv"
    raw.row(metadata, "image_id,age_approximate,sex", "ISIC_0000001,unknown,unknown")
    write_image(raw.folder / "2017/ISIC-2017_Training_Part1_GroundTruth/ISIC_0000001_Segmentation.PNG")
    year = read(raw, 2017)
    assert list(year.records["split"]) == ["train", "2017-validation", "2017-test"]
    assert [labels(year.records, each) for each in ids] == [{"MEL": 1.0}, {"BKL": 1.0}, {"NV": 1.0}]
    assert [len(year.files[each]) for each in ids] == [1, 1, 1]
    assert list(year.masks) == ["ISIC_0000001"]
    assert year.records.loc[0, ["age", "sex", "site", "lesion_id"]].isna().all()


def test_ak_and_scc_are_unknown_where_2018_has_akiec(raw: Raw) -> None:
    ids = [raw.image_2018(1, "AKIEC", lesion="HAM_0000007"), raw.image_2018(2, "DF", "Test")]
    write_image(raw.folder / "2018/ISIC2018_Task1_Training_GroundTruth/ISIC_0000099_segmentation.png")
    write_image(raw.folder / "2018/ISIC2018_Task1-2_Training_Input/ISIC_0000099.jpg")
    year = read(raw, 2018)
    unknown = labels(year.records, ids[0])
    assert unknown.pop("AKIEC") == 1
    assert set(unknown) == {"AK", "SCC"}
    assert all(np.isnan(value) for value in unknown.values())
    assert labels(year.records, ids[1]) == {"DF": 1.0}
    assert list(year.records["lesion_id"].fillna("-")) == ["HAM_0000007", "-", "-"]
    assert list(year.masks) == ["ISIC_0000099"]
    assert set(year.files) == {*ids, "ISIC_0000099"}


def test_2019_has_all_eight_and_unk_is_zero_in_each(raw: Raw) -> None:
    ids = [
        raw.image_2019(1, "SCC", suffix="_downsampled", lesion="BCN_1"),
        raw.image_2019(2, "UNK", "Test"),
        raw.image_2019(3, "AK"),
    ]
    year = read(raw, 2019)
    assert [labels(year.records, each) for each in ids] == [{"SCC": 1, "AKIEC": 1}, {}, {"AK": 1, "AKIEC": 1}]
    assert year.files["ISIC_0000001"][0].name == "ISIC_0000001_downsampled.jpg"
    first = year.records.set_index("image_id").loc["ISIC_0000001"]
    assert (first["age"], first["sex"], first["site"], first["lesion_id"]) == (55, "female", "head/neck", "BCN_1")


def test_nested_archives_and_a_byte_order_mark_are_read(raw: Raw) -> None:
    name = raw.image_2018(1)
    table = next(raw.folder.rglob("*GroundTruth.csv"))
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes().replace(b"\n", b"\r\n"))
    images = raw.folder / "2018/ISIC2018_Task3_Training_Input"
    images.rename(raw.folder / "images")
    images.mkdir()
    (raw.folder / "images").rename(images / images.name)
    assert list(read(raw, 2018).files) == [name]


def test_images_without_labels_are_noted(raw: Raw) -> None:
    raw.image_2019(1)
    write_image(raw.folder / "2019/ISIC_2019_Training_Input/ISIC_0000002.jpg")
    write_image(raw.folder / "2019/ISIC_2019_Test_Input/ISIC_0000003.jpg")
    unlabelled, part, without_table = read(raw, 2019).notes
    assert part == "2019/ISIC_2019_Training_GroundTruth.csv: labels 1 of the 25331 official images"
    assert "1 images in ISIC_2019_Training_Input have no row" in unlabelled
    assert "no ISIC_2019_Test_GroundTruth.csv" in without_table


def test_one_error_lists_all_wrong_rows(raw: Raw) -> None:
    raw.image_2017(1)
    path = write_table(
        raw.folder / "2017/ISIC-2017_Training_Part3_GroundTruth.csv",
        "image_id,melanoma,seborrheic_keratosis",
        "ISIC_0000001,0.0,0.0",
        "ISIC_0000001,0.0,0.0",
        "ISIC_001,0.0,0.0",
        "ISIC_0000002,0.5,0.0",
        "ISIC_0000003,nan,",
        "ISIC_0000004,1.0,1.0",
        "ISIC_0000005,1.0",
    )
    write_table(
        raw.folder / "2017/ISIC-2017_Training_Data_metadata.csv", "image_id,age_approximate,sex", "ISIC_0000001,old,f"
    )
    write_table(raw.folder / "2017/ISIC-2017_Validation_Part3_GroundTruth.csv", "image,melanoma", "ISIC_0000009,1")
    with pytest.raises(DataError) as caught:
        read(raw, 2017)
    text = str(caught.value)
    assert text.startswith("10 wrong entries")
    for line, message in [
        (3, "image_id 'ISIC_0000001': is in an earlier line already"),
        (4, "image_id 'ISIC_001': must be ISIC_ and seven digits"),
        (5, "melanoma '0.5': must be 0 or 1 (also line 6 'nan')"),
        (6, "seborrheic_keratosis '': must be 0 or 1"),
        (7, "labels 'melanoma seborrheic_keratosis': only one of them may be 1"),
        (8, "row 'ISIC_0000005,1.0': has 2 fields, the header has 3"),
    ]:
        assert f"{path} line {line}: {message}" in text
    assert "age_approximate 'old': must be an age of 0 to 120" in text
    assert "sex 'f': must be one of female, male, or unknown" in text
    assert "the columns image_id, seborrheic_keratosis are missing" in text


def test_2018_and_2019_refuse_a_row_without_a_label(raw: Raw) -> None:
    raw.image_2018(1, "nothing")
    with pytest.raises(DataError, match="labels 'none': one of them must be 1"):
        read(raw, 2018)


@pytest.mark.parametrize("broken", [b"", b"\xff\xfe\x00binary", b'image,"MEL\n'])
def test_an_unreadable_table_is_reported(raw: Raw, broken: bytes) -> None:
    raw.image_2019(1)
    (raw.folder / "2019/ISIC_2019_Training_GroundTruth.csv").write_bytes(broken)
    with pytest.raises(DataError, match=r"ISIC_2019_Training_GroundTruth.csv line 1"):
        read(raw, 2019)


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_links_folders_and_pipes_are_not_images(kind: str, raw: Raw) -> None:
    raw.image_2017(1)
    raw.image_2017(2)
    mask = raw.folder / "2017/ISIC-2017_Training_Part1_GroundTruth/ISIC_0000002_segmentation.png"
    mask.parent.mkdir()
    for path in (raw.folder / "2017/ISIC-2017_Training_Data/ISIC_0000002.jpg", mask):
        path.unlink(missing_ok=True)
        if kind == "link":
            path.symlink_to("nowhere")
        else:
            path.mkdir() if kind == "folder" else os.mkfifo(path)
    year = read(raw, 2017)
    assert (list(year.files), year.masks) == (["ISIC_0000001"], {})


def test_missing_folders_are_named(raw: Raw) -> None:
    with pytest.raises(DataError, match=r"nowhere: no such folder.*data download"):
        read_collections(raw.folder / "nowhere", ("2017",))
    with pytest.raises(DataError, match=r"no labels of ISIC 2018. Looked for ISIC2018_Task3_Training"):
        read(raw, 2018)
    with pytest.raises(DataError, match="--years 2016: must be among 2017, 2018, 2019"):
        read(raw, 2016)


def test_years_complete_each_other(raw: Raw) -> None:
    raw.image_2017(1, "MEL")
    raw.image_2017(2, "NV", "Test_v2")
    raw.image_2018(3, "AKIEC")
    raw.image_2018(4, "AKIEC")
    raw.image_2019(1, "MEL", suffix="_downsampled", lesion="MSK_1")
    raw.image_2019(2, "NV")
    raw.image_2019(3, "SCC")
    write_image(raw.folder / "2018/ISIC2018_Task1_Training_GroundTruth/ISIC_0000001_segmentation.png")
    years = read_collections(raw.folder, ("2019", "2017", "2018"))
    table = merge_collections(years).set_index("image_id", drop=False)
    assert list(table["years"]) == ["2017+2019", "2017+2019", "2018+2019", "2018"]
    assert list(table["split"]) == ["train", "2017-test", "train", "train"]
    assert table.loc["ISIC_0000002", "listed"] == "2017-test+2019-train"
    assert table.loc["ISIC_0000001", "lesion_id"] == "MSK_1"
    assert list(table.index[table["lesion_id"].isna()]) == ["ISIC_0000002"]
    assert labels(table, "ISIC_0000003") == {"SCC": 1, "AKIEC": 1}
    assert np.isnan(table.loc["ISIC_0000004", "SCC"])
    assert len(merge_files(years)["ISIC_0000001"]) == 2
    assert list(merge_masks(years)) == ["ISIC_0000001"]


def test_one_error_lists_all_contradictions_between_years(raw: Raw) -> None:
    for number, label in [(1, "MEL"), (2, "NV")]:
        raw.image_2017(number, label)
        raw.image_2019(number, "BKL")
    with pytest.raises(DataError) as caught:
        merge_collections(read_collections(raw.folder, ("2017", "2019")))
    assert "2 images have labels that contradict" in str(caught.value)
    assert "ISIC_0000001: 2017 says MEL, 2019 says BKL" in str(caught.value)


def test_conflicts_newest_and_unknown_resolve_contradictions(raw: Raw) -> None:
    raw.image_2017(1, "MEL")
    raw.image_2019(1, "BKL")
    raw.image_2017(2, "NV")
    raw.image_2018(2, "AKIEC")
    raw.image_2017(3, "MEL")
    years = read_collections(raw.folder, ("2017", "2018", "2019"))
    newest = merge_collections(years, "newest")
    assert labels(newest, "ISIC_0000001") == {"BKL": 1}
    second = labels(newest, "ISIC_0000002")
    assert second.pop("AKIEC") == 1
    assert np.isnan([second.pop("AK"), second.pop("SCC")]).all()  # unknown in 2018, and 2017 is older
    assert second == {}
    unknown = merge_collections(years, "unknown")
    assert {name for name, value in labels(unknown, "ISIC_0000001").items() if np.isnan(value)} == {"MEL", "BKL"}
    assert labels(unknown, "ISIC_0000003") == {"MEL": 1}


def test_an_unselected_year_contributes_test_splits_and_lesions(raw: Raw) -> None:
    raw.image_2017(1, part="Test_v2")
    raw.image_2017(2)
    raw.image_2019(1, lesion="MSK_1")
    raw.image_2019(3, "MEL", lesion="MSK_1")
    raw.image_2018(3, "NV")  # contradicts 2019, and is not selected
    years = read_collections(raw.folder, ("2019",))
    table = merge_collections(years).set_index("image_id", drop=False)
    assert list(table["selected"]) == [True, False, True]
    assert table["split"].to_dict() == {
        "ISIC_0000001": "2017-test",
        "ISIC_0000002": "train",
        "ISIC_0000003": "train",
    }
    assert list(table["years"]) == ["2019", "", "2019"]
    assert labels(table, "ISIC_0000003") == {"MEL": 1}
    assert set(merge_files(years)) == {"ISIC_0000001", "ISIC_0000003"}


def test_a_missing_table_of_lesions_is_refused(raw: Raw) -> None:
    raw.image_2018(1)
    (raw.folder / "2018/ISIC2018_Task3_Training_LesionGroupings.csv").unlink()
    with pytest.raises(DataError, match=r"(?s)LesionGroupings.csv is missing: 1 .*two folds.*data download"):
        read(raw, 2018)


def test_an_unknown_label_column_is_remarked_and_a_repeated_one_refused(raw: Raw) -> None:
    raw.image_2017(1)
    table = raw.folder / "2017/ISIC-2017_Training_Part3_GroundTruth.csv"
    write_table(table, "image_id,melanoma,seborrheic_keratosis,nevus", "ISIC_0000001,0.0,0.0,1.0")
    assert f"{table}: does not use the columns nevus." in read(raw, 2017).remarks
    write_table(table, "image_id,melanoma,melanoma,seborrheic_keratosis", "ISIC_0000001,0.0,1.0,0.0")
    with pytest.raises(DataError, match="has several columns named melanoma"):
        read(raw, 2017)


def test_the_real_years_agree_and_count_as_published(isic: Path) -> None:
    years = read_collections(isic, ("2017", "2018", "2019"))
    table = merge_collections(years)
    assert [len(year.records) for year in years] == [2150, 7522 + 1100, 25331]  # 1100 have a mask alone
    assert len(table) == 25331  # 2019 holds all of the others
    positives = table[list(LABEL_COLUMNS)].sum().astype(int).to_dict()
    expected = {"MEL": 4522, "NV": 12875, "BCC": 3323, "AK": 867, "BKL": 2624, "DF": 239, "VASC": 253, "SCC": 628}
    assert positives == expected | {"AKIEC": 867 + 628}
    assert (table["split"] == "2017-validation").sum() == 150
    assert table["lesion_id"].isna().sum() == 2084
    assert len(merge_masks(years)) == 1100
    assert "2074 ids carry the suffix _downsampled, which is no part of the id." in years[2].remarks
    assert [year.gaps for year in years] == [(), (), ()]
    named = years[2].records["lesion_id"].dropna()
    assert (named.nunique(), len(named)) == (11847, 23247)


def test_a_corrupt_table_is_read_or_refused(raw: Raw) -> None:
    for number in range(3):
        raw.image_2019(number, "MEL", lesion=f"L{number}")
    for name in ("GroundTruth", "Metadata"):
        table = raw.folder / f"2019/ISIC_2019_Training_{name}.csv"
        whole = table.read_bytes()

        def merged(data: bytes, table: Path = table) -> None:
            table.write_bytes(data)
            merge_collections(read_collections(raw.folder, ("2019",)), "refuse")

        fuzz_reader(merged, whole, DataError, examples=12)
        table.write_bytes(whole)

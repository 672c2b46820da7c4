"""The side table of lesions: what is written is read, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from melanoma_dist.artifacts import lesion_table
from melanoma_dist.artifacts.lesion_table import LesionTable, lesion_row, read_lesions, write_lesions, write_mask
from melanoma_dist.config.label_sets import LABEL_SETS
from melanoma_dist.data.folds import make_folds
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.errors import DataError, UserError

from ..samples import small_dataset

LABELS = LABEL_SETS["melanoma"]


def mask_of(row: int, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """A rectangle within the image; nothing in every seventh."""
    mask = np.zeros(size, dtype=bool)
    if row % 7:
        mask[size[0] // 4 : size[0] // 2 + row % 5, size[1] // 3 :] = True
    return mask


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return small_dataset(tmp_path_factory.mktemp("data"), 60)


@pytest.fixture(scope="module")
def folds(dataset: Dataset) -> pd.DataFrame:
    return make_folds(dataset.manifest, LABELS, 3, 0)


def rows_of(dataset: Dataset, folds: pd.DataFrame) -> pd.DataFrame:
    """Every image with the mask of the model that may see it."""
    fold = folds.set_index("image_id")["fold"]
    images = dataset.manifest
    rows = []
    for row, (name, width, height) in enumerate(
        zip(images["image_id"], images["width"], images["height"], strict=True)
    ):
        model = f"fold-{fold[name]}" if name in fold.index else "ensemble"
        rows.append(lesion_row(name, model, mask_of(row, (height, width)), 0.9, 0.005))
    return pd.DataFrame(rows)


@pytest.fixture
def written(dataset: Dataset, folds: pd.DataFrame, tmp_path: Path) -> LesionTable:
    folder = tmp_path / "lesions"
    for row, (name, width, height) in enumerate(dataset.manifest[["image_id", "width", "height"]].to_numpy()):
        write_mask(folder, name, mask_of(row, (height, width)))
    return write_lesions(folder, dataset, rows_of(dataset, folds), folds, "segmenter", "ab" * 32)


def test_a_table_is_read_as_it_was_written(dataset: Dataset, written: LesionTable) -> None:
    again = read_lesions(written.folder, dataset)
    pd.testing.assert_frame_equal(again.rows, written.rows)
    assert again.record == written.record
    assert again.record.detected == int(again.rows["detected"].sum()) == sum(row % 7 > 0 for row in range(60))
    for row in (0, 1, 59):
        size = dataset.manifest["height"].iloc[row], dataset.manifest["width"].iloc[row]
        np.testing.assert_array_equal(again.mask(row), mask_of(row, size))


def test_a_box_is_the_smallest_around_the_mask() -> None:
    mask = np.zeros((40, 80), dtype=bool)
    mask[10:20, 20:60] = True
    row = lesion_row("a", "truth", mask, 1.0, 0.005)
    assert [row[side] for side in lesion_table.BOX] == [0.25, 0.25, 0.25, 0.5]
    assert (row["area"], row["touches_border"], row["detected"]) == (0.125, False, True)
    mask[:, 79] = True
    assert lesion_row("a", "truth", mask, 1.0, 0.005)["touches_border"]


@pytest.mark.parametrize("pixels", [0, 15])
def test_what_is_too_small_is_no_lesion(pixels: int) -> None:
    mask = np.zeros((40, 80), dtype=bool)
    mask.ravel()[:pixels] = True
    row = lesion_row("a", "truth", mask, 1.0, 0.005)
    assert [row[side] for side in lesion_table.BOX] == [0, 0, 1, 1]
    assert not row["detected"]


def test_the_table_of_another_data_set_is_refused(written: LesionTable, tmp_path: Path) -> None:
    other = small_dataset(tmp_path / "other", 30)
    with pytest.raises(DataError, match=r"is about the data set with fingerprint .* Write the lesions of this one"):
        read_lesions(written.folder, other)


@pytest.mark.parametrize("name", ["lesions.parquet", "folds.parquet"])
def test_a_file_that_changed_is_refused(dataset: Dataset, written: LesionTable, name: str) -> None:
    with (written.folder / name).open("ab") as file:
        file.write(b"\0")
    with pytest.raises(DataError, match=f"{name} is not what lesions.json was written with"):
        read_lesions(written.folder, dataset)


def test_a_mask_that_changed_is_refused(dataset: Dataset, written: LesionTable) -> None:
    name = str(written.rows["image_id"].iloc[1])
    write_mask(written.folder, name, np.ones((5, 5), dtype=bool))
    with pytest.raises(DataError, match="its bytes are not those that were written"):
        read_lesions(written.folder, dataset).mask(1)


def test_a_table_without_its_folds_proves_nothing(dataset: Dataset, written: LesionTable) -> None:
    record = json.loads((written.folder / "lesions.json").read_text())
    del record["files"]["folds.parquet"]
    (written.folder / "lesions.json").write_text(json.dumps(record))
    with pytest.raises(DataError, match=r"folds\.parquet is not what lesions\.json was written with"):
        read_lesions(written.folder, dataset)


def test_an_unfinished_folder_says_so(dataset: Dataset, written: LesionTable, tmp_path: Path) -> None:
    (written.folder / "lesions.json").unlink()
    with pytest.raises(DataError, match=r"is unfinished: lesions\.json is written last"):
        read_lesions(written.folder, dataset)
    with pytest.raises(DataError, match=r"holds no lesions\.json"):
        read_lesions(tmp_path / "nowhere", dataset)


def test_another_version_is_refused(dataset: Dataset, written: LesionTable) -> None:
    record = json.loads((written.folder / "lesions.json").read_text()) | {"schema": 99}
    (written.folder / "lesions.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="has schema 99, must be 2"):
        read_lesions(written.folder, dataset)


def test_a_mask_of_a_model_that_saw_the_image_is_refused(dataset: Dataset, folds: pd.DataFrame, tmp_path: Path) -> None:
    rows = rows_of(dataset, folds)
    own = folds["fold"].iloc[4]
    for model in ("ensemble", f"fold-{(own + 1) % 3}", "truth"):
        wrong = rows.assign(model=rows["model"].where(rows["image_id"] != folds["image_id"].iloc[4], model))
        with pytest.raises(DataError, match="no mask comes from a model that trained on the image's group: 1 masks"):
            write_lesions(tmp_path / "lesions", dataset, wrong, folds, "segmenter", "ab" * 32)
    assert not (tmp_path / "lesions" / "lesions.json").exists()


def test_another_image_of_the_group_counts_as_seen(dataset: Dataset, folds: pd.DataFrame, tmp_path: Path) -> None:
    rows = rows_of(dataset, folds)
    pairs = folds["group"].duplicated(keep=False)
    second = folds[pairs].sort_values("group").iloc[0]
    # The segmenter's folds have one image of the lesion alone: the other one may have that fold's model, and no other.
    fewer = folds[folds["image_id"] != second["image_id"]]
    check = lesion_table.out_of_fold_check(dataset.manifest, rows, fewer)
    assert check.passed
    wrong = rows.assign(model=rows["model"].where(rows["image_id"] != second["image_id"], "ensemble"))
    check = lesion_table.out_of_fold_check(dataset.manifest, wrong, fewer)
    assert check.failures == (f"1 masks: {second['image_id']}",)


def test_a_group_in_two_folds_has_no_model(dataset: Dataset, folds: pd.DataFrame) -> None:
    rows = rows_of(dataset, folds)
    second = folds[folds["group"].duplicated(keep=False)].sort_values("group").iloc[0]
    there = folds["image_id"] == second["image_id"]
    split = folds.assign(fold=folds["fold"].where(~there, (second["fold"] + 1) % 3))
    assert not lesion_table.out_of_fold_check(dataset.manifest, rows, split).passed
    group = dataset.manifest.loc[dataset.manifest["group"] == second["group"], "image_id"]
    none = rows.assign(model=rows["model"].where(~rows["image_id"].isin(group), "none"))
    assert lesion_table.out_of_fold_check(dataset.manifest, none, split).passed


def test_true_masks_need_no_folds(dataset: Dataset, folds: pd.DataFrame, tmp_path: Path) -> None:
    rows = rows_of(dataset, folds).assign(model="truth")
    write_lesions(tmp_path / "lesions", dataset, rows, None, "truth", "truth")
    assert read_lesions(tmp_path / "lesions", dataset).record.segmenter == "truth"
    with pytest.raises(DataError, match="60 masks of models without folds"):
        write_lesions(tmp_path / "more", dataset, rows.assign(model="ensemble"), None, "truth", "truth")


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("quality", np.nan, "quality: must be shares"),
        ("area", 1.5, "area: must be shares"),
        ("height", 0.0, "60 boxes are empty or leave their image"),
        ("left", 0.9, "boxes are empty or leave their image"),
    ],
)
def test_impossible_values_are_refused(
    dataset: Dataset, folds: pd.DataFrame, tmp_path: Path, column: str, value: float, message: str
) -> None:
    rows = rows_of(dataset, folds).assign(**{column: value})
    with pytest.raises(DataError, match=message):
        write_lesions(tmp_path / "lesions", dataset, rows, folds, "segmenter", "ab" * 32)


def test_a_table_of_other_images_is_refused(dataset: Dataset, folds: pd.DataFrame, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="must have one row for each of the 60 images"):
        write_lesions(tmp_path / "lesions", dataset, rows_of(dataset, folds)[1:], folds, "segmenter", "ab" * 32)

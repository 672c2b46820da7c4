"""The images that may evaluate a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from melanoma_dist.data.labels import DIAGNOSES
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.data.prepare import Request, prepare
from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.evaluate.holdout.contamination import exclude_related, related_images
from melanoma_dist.inference.images import Images, absent_labels, holdouts, select_all, select_holdout
from melanoma_dist.inference.trained_run import open_trained_run

from ...data.conftest import Raw, small
from .conftest import PHOTOGRAPHED, write_photograph

UNSEEN = (301, 302, 303)


@pytest.fixture
def raw(tmp_path: Path) -> Raw:
    return Raw(tmp_path / "raw")


@pytest.fixture
def trained(finished: Path, data: Dataset) -> Images:
    return open_trained_run(finished).trained(data)


def refused(raw: Raw, trained: Images) -> str:
    """Why the images in ``raw`` are refused, as a data set of their own."""
    dataset = prepare(Request(raw.folder, ("2019",), size=64, synthetic=True), raw.folder.parent / "prepared")
    selection = select_all(dataset, str(dataset.folder), DIAGNOSES)
    with pytest.raises(DataError) as error:
        exclude_related(selection, [trained], exclude=False)
    return str(error.value)


def others(raw: Raw) -> None:
    for number in UNSEEN:
        raw.image_2019(number, "NV", lesion=f"LESION_{number:04d}", size=(64, 48))


def number_of(trained: Images) -> int:
    """The number of a photographed image that was trained on."""
    ids = set(trained.table["image_id"])
    return next(number for number in PHOTOGRAPHED if f"ISIC_{number:07d}" in ids)


def test_a_holdout_is_unseen(data: Dataset, trained: Images) -> None:
    selection = select_holdout(data, "holdout", DIAGNOSES)
    assert len(selection.images.rows) == (data.manifest["split"] == "holdout").sum() > 10
    assert exclude_related(selection, [trained], exclude=False) is selection


def test_images_that_were_trained_on_are_refused(data: Dataset, trained: Images) -> None:
    with pytest.raises(
        DataError, match=rf"^{len(trained.rows)} of {len(data.manifest)} images are not unseen"
    ) as error:
        exclude_related(select_all(data, str(data.folder), DIAGNOSES), [trained], exclude=False)
    assert f"(it was trained on itself); and {len(trained.rows) - 5} more." in str(error.value)


def test_the_same_file_under_another_id_is_refused(raw: Raw, trained: Images) -> None:
    others(raw)
    number = number_of(trained)
    raw.image_2019(400, "NV")
    write_photograph(raw, 400, like=number)
    message = refused(raw, trained)
    assert message.startswith("1 of 4 images are not unseen")
    assert f"ISIC_0000400 (its file was, as ISIC_{number:07d})" in message


def test_another_photograph_of_a_lesion_is_refused(raw: Raw, trained: Images) -> None:
    others(raw)
    lesion = str(trained.table["lesion_id"].iloc[3])
    raw.image_2019(400, "NV", lesion=lesion, size=(64, 48))
    assert f"ISIC_0000400 (its lesion {lesion} was, on ISIC_" in refused(raw, trained)


def test_a_copy_and_the_other_photographs_of_its_lesion_are_refused(raw: Raw, trained: Images) -> None:
    others(raw)
    number = number_of(trained)
    raw.image_2019(400, "NV", lesion="LESION_NEW")
    write_photograph(raw, 400, like=number, quality=70)
    raw.image_2019(401, "NV", lesion="LESION_NEW", size=(64, 48))
    message = refused(raw, trained)
    assert message.startswith("2 of 5 images")
    assert f"ISIC_0000400 (a copy of it was, ISIC_{number:07d}; details correlate at 0.9" in message
    assert "ISIC_0000401 (it is in the group of ISIC_0000400: a copy of it was" in message


def with_patients(images: Images, patients: list[str | None]) -> Images:
    """The images, in a data set that knows patients. The other images of the data set have none."""
    column = pd.Series(None, index=images.dataset.manifest.index, dtype="str")
    column.iloc[images.rows] = patients
    return Images(replace(images.dataset, manifest=images.dataset.manifest.assign(patient_id=column)), images.rows)


def test_an_image_of_a_patient_who_was_trained_on_is_refused(trained: Images, other_data: Dataset) -> None:
    count = len(other_data.manifest)
    images = Images(other_data, np.arange(count, dtype=np.int64))
    known = with_patients(trained, ["P1", None, ""] + [f"T{at}" for at in range(3, len(trained.rows))])
    ours = with_patients(images, ["P1", None, ""] + [f"U{at}" for at in range(3, count)])
    assert related_images(ours, [known]) == {images.image_ids[0]: f"its patient P1 was, on {trained.image_ids[0]}"}


def test_patients_count_only_where_both_data_sets_know_them(trained: Images, other_data: Dataset) -> None:
    images = Images(other_data, np.arange(len(other_data.manifest), dtype=np.int64))
    assert related_images(with_patients(images, ["P1"] * len(images.rows)), [trained]) == {}
    assert related_images(images, [with_patients(trained, ["P1"] * len(trained.rows))]) == {}


def test_holdouts_are_those_of_the_splits_and_of_the_official_lists(tmp_path: Path) -> None:
    dataset = small(Raw(tmp_path / "raw"), tmp_path / "prepared")
    there = holdouts(dataset.manifest)
    assert {name: int(rows.sum()) for name, rows in there.items()} == {"2017-test": 1}
    # A later test lists the image too, and it lies in one split only.
    both = dataset.manifest.assign(listed=dataset.manifest["listed"].str.replace("2017-test", "2017-test+2019-test"))
    assert {name: int(rows.sum()) for name, rows in holdouts(both).items()} == {"2017-test": 1, "2019-test": 1}
    with pytest.raises(ConfigError, match=r"--holdout 2018-test: .* It has: 2017-test \(1 images\)"):
        select_holdout(dataset, "2018-test", ("MEL",))
    for name in ("train", "excluded: lesion or copy in 2017-test"):
        with pytest.raises(ConfigError, match="no holdout of that name"):
            select_holdout(dataset, name, ("MEL",))


def test_a_data_set_without_holdouts(other_data: Dataset) -> None:
    with pytest.raises(ConfigError, match="It has none: `data prepare` keeps"):
        select_holdout(other_data, "holdout", ("MEL",))


def test_images_of_which_nothing_is_known_are_left_out(data: Dataset) -> None:
    manifest = data.manifest.copy()
    rows = np.flatnonzero(manifest["split"] == "holdout")
    manifest.loc[rows[:2], list(DIAGNOSES)] = np.float32(np.nan)
    selection = select_holdout(replace(data, manifest=manifest), "holdout", DIAGNOSES)
    assert (len(selection.images.rows), selection.unlabelled) == (len(rows) - 2, 2)
    manifest.loc[rows, list(DIAGNOSES)] = np.float32(np.nan)
    with pytest.raises(DataError, match="so they cannot evaluate it"):
        select_holdout(replace(data, manifest=manifest), "holdout", DIAGNOSES)


def test_labels_that_images_cannot_evaluate(data: Dataset) -> None:
    manifest = data.manifest.assign(BCC=np.float32(np.nan), AK=np.float32(0), NV=np.float32(1))
    images = Images(replace(data, manifest=manifest), np.arange(9, dtype=np.int64))
    assert absent_labels(images, ("MEL", "NV", "BCC", "AK")) == {
        "NV": "no image is known not to have this label",
        "BCC": "this label is not known for any image",
        "AK": "no image has this label",
    }


def test_the_same_images_have_the_same_hash_wherever_they_lie(data: Dataset) -> None:
    rows = np.arange(9, dtype=np.int64)
    turned = replace(data, manifest=data.manifest.iloc[::-1])
    ours, theirs = Images(data, rows), Images(turned, len(data.manifest) - 1 - rows)
    assert ours.sha256() == theirs.sha256() != Images(data, rows[:-1]).sha256()

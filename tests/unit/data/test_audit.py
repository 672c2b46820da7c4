from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest

from melanoma_dist.data.audit import check_folds, fold_table
from melanoma_dist.data.folds import make_folds
from melanoma_dist.data.labels import LABEL_SETS
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.errors import DataError

COUNT = 5
LABELS = LABEL_SETS["isic2017"]
FOREIGN_GROUPS = "groups of the folds are not those of the manifest"


@pytest.fixture
def manifest(dataset: Dataset) -> pd.DataFrame:
    return dataset.manifest.copy()


@pytest.fixture
def folds(manifest: pd.DataFrame) -> pd.DataFrame:
    return make_folds(manifest, LABELS, COUNT, 0)


def alone(folds: pd.DataFrame) -> int:
    """A row whose lesion was photographed once."""
    return int(folds.index[~folds["group"].duplicated(keep=False)][0])


def in_two_folds(manifest: pd.DataFrame, folds: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    row = folds.loc[[alone(folds)]]
    image, group = row["image_id"].item(), row["group"].item()
    told = [f"1 images lie in more than one fold: {image}", f"1 groups lie in more than one fold: {group}"]
    return pd.concat([folds, row.assign(fold=(row["fold"] + 1) % COUNT)], ignore_index=True), told


def missing(manifest: pd.DataFrame, folds: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    image = folds.loc[alone(folds), "image_id"]
    return folds.drop(index=alone(folds)), [f"1 images of the pool lie in no fold: {image}"]


def foreign(manifest: pd.DataFrame, folds: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    row = folds.loc[[alone(folds)]].assign(image_id="ISIC_9999999")
    return pd.concat([folds, row], ignore_index=True), ["1 images are not of the pool: ISIC_9999999", FOREIGN_GROUPS]


def excluded(manifest: pd.DataFrame, folds: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    image = folds.loc[alone(folds), "image_id"]
    manifest.loc[manifest["image_id"] == image, "split"] = "excluded: lesion or copy in 2017-test"
    return folds, [f"1 images are not of the pool: {image}"]


def group_spread(manifest: pd.DataFrame, folds: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    group = folds.loc[folds["group"].duplicated(), "group"].iloc[0]
    row = folds.index[folds["group"] == group][0]
    folds.loc[row, "fold"] = (folds.loc[row, "fold"] + 1) % COUNT
    return folds, [f"1 groups lie in more than one fold: {group}"]


def spread_under_another_name(manifest: pd.DataFrame, folds: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    row = folds.index[folds["group"].duplicated()][0]
    folds.loc[row, ["group", "fold"]] = ["another", (folds.loc[row, "fold"] + 1) % COUNT]
    return folds, [FOREIGN_GROUPS]


def empty_fold(manifest: pd.DataFrame, folds: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    folds["fold"] = folds["fold"].replace(3, 4)
    return folds, ["the folds are numbered [0, 1, 2, 4]; they should be 0 to 4, none of them empty"]


def holdout(manifest: pd.DataFrame, folds: pd.DataFrame) -> tuple[pd.DataFrame, list[str]]:
    """One photograph of a lesion is held out, the other one trains."""
    group = folds.loc[folds["group"].duplicated(), "group"].iloc[0]
    image = folds.loc[folds["group"] == group, "image_id"].iloc[0]
    manifest.loc[manifest["image_id"] == image, "split"] = "2017-test"
    return folds[folds["image_id"] != image], [f"1 groups lie in a fold and in a holdout: {group}"]


def test_honest_folds_pass(manifest: pd.DataFrame, folds: pd.DataFrame) -> None:
    check_folds(manifest, folds, COUNT)
    check_folds(manifest, folds.sample(frac=1, random_state=0), COUNT)


@pytest.mark.parametrize(
    "tamper",
    [
        in_two_folds, missing, foreign, excluded, group_spread, spread_under_another_name, empty_fold, holdout,
    ],
)  # fmt: skip
def test_each_tampering_is_refused_by_its_name_and_by_nothing_else(
    tamper: Callable[[pd.DataFrame, pd.DataFrame], tuple[pd.DataFrame, list[str]]],
    manifest: pd.DataFrame,
    folds: pd.DataFrame,
) -> None:
    spoilt, told = tamper(manifest, folds)
    with pytest.raises(DataError) as caught:
        check_folds(manifest, spoilt, COUNT)
    first, *complaints = str(caught.value).splitlines()
    assert first == "The folds are not sound, and nothing was trained:"
    assert [line.strip() for line in complaints] == told


def test_a_fold_too_many_or_too_few_is_refused(manifest: pd.DataFrame, folds: pd.DataFrame) -> None:
    for count in (COUNT - 1, COUNT + 1):
        with pytest.raises(DataError, match=f"they should be 0 to {count - 1}"):
            check_folds(manifest, folds, count)


def test_the_table_counts_images_lesions_positives_and_unknown(manifest: pd.DataFrame, folds: pd.DataFrame) -> None:
    unknown = folds.loc[folds["fold"] == 2, "image_id"].iloc[0]
    manifest.loc[manifest["image_id"] == unknown, "BKL"] = float("nan")
    rows = fold_table(manifest, folds, LABELS)
    assert [row[0] for row in rows] == [f"fold {fold}" for fold in range(COUNT)]
    for fold, (_, images, lesions, *positives) in enumerate(rows):
        inside = manifest[manifest["image_id"].isin(folds.loc[folds["fold"] == fold, "image_id"])]
        assert (int(images), int(lesions)) == (len(inside), inside["group"].nunique())
        expected = [f"{int(inside[label].sum())}" for label in LABELS]
        assert positives == [expected[0], expected[1] + (" (1 unknown)" if fold == 2 else "")]

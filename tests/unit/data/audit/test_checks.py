from __future__ import annotations

from collections.abc import Callable

import pandas as pd
import pytest

from melanoma_dist.data.audit.checks import Check, fold_checks, fold_table, manifest_checks, require
from melanoma_dist.data.folds import make_folds
from melanoma_dist.data.labels import LABEL_SETS
from melanoma_dist.data.manifest import JOINS, Dataset, read_side_table
from melanoma_dist.errors import DataError

COUNT = 5
LABELS = LABEL_SETS["isic2017"]
ONE_FOLD = "every image of the training pool lies in exactly one fold"
NUMBERED = f"there are {COUNT} folds, none of them empty"
SAME_GROUPS = "the folds have the groups of the manifest"
TWO_FOLDS = "no group lies in two folds"
HELD_OUT = "no group lies in a fold and in a holdout"

Failures = dict[str, str]
"""The failures of each failed check, by its name."""


@pytest.fixture
def manifest(dataset: Dataset) -> pd.DataFrame:
    return dataset.manifest.copy()


@pytest.fixture
def folds(manifest: pd.DataFrame) -> pd.DataFrame:
    return make_folds(manifest, LABELS, COUNT, 0)


def alone(folds: pd.DataFrame) -> int:
    """A row whose lesion has one image."""
    return int(folds.index[~folds["group"].duplicated(keep=False)][0])


def in_two_folds(manifest: pd.DataFrame, folds: pd.DataFrame) -> tuple[pd.DataFrame, Failures]:
    row = folds.loc[[alone(folds)]]
    image, group = row["image_id"].item(), row["group"].item()
    expected = {
        ONE_FOLD: f"1 images lie in more than one fold: {image}",
        TWO_FOLDS: f"1 groups lie in more than one fold: {group}",
    }
    return pd.concat([folds, row.assign(fold=(row["fold"] + 1) % COUNT)], ignore_index=True), expected


def missing(manifest: pd.DataFrame, folds: pd.DataFrame) -> tuple[pd.DataFrame, Failures]:
    image = folds.loc[alone(folds), "image_id"]
    return folds.drop(index=alone(folds)), {ONE_FOLD: f"1 images of the pool lie in no fold: {image}"}


def foreign(manifest: pd.DataFrame, folds: pd.DataFrame) -> tuple[pd.DataFrame, Failures]:
    row = folds.loc[[alone(folds)]].assign(image_id="ISIC_9999999")
    expected = {
        ONE_FOLD: "1 images are not of the pool: ISIC_9999999",
        SAME_GROUPS: "1 images have another group: ISIC_9999999",
    }
    return pd.concat([folds, row], ignore_index=True), expected


def excluded(manifest: pd.DataFrame, folds: pd.DataFrame) -> tuple[pd.DataFrame, Failures]:
    image = folds.loc[alone(folds), "image_id"]
    manifest.loc[manifest["image_id"] == image, "split"] = "excluded: lesion or copy in 2017-test"
    return folds, {ONE_FOLD: f"1 images are not of the pool: {image}"}


def group_spread(manifest: pd.DataFrame, folds: pd.DataFrame) -> tuple[pd.DataFrame, Failures]:
    group = folds.loc[folds["group"].duplicated(), "group"].iloc[0]
    row = folds.index[folds["group"] == group][0]
    folds.loc[row, "fold"] = (folds.loc[row, "fold"] + 1) % COUNT
    return folds, {TWO_FOLDS: f"1 groups lie in more than one fold: {group}"}


def spread_under_another_name(manifest: pd.DataFrame, folds: pd.DataFrame) -> tuple[pd.DataFrame, Failures]:
    row = folds.index[folds["group"].duplicated()][0]
    folds.loc[row, ["group", "fold"]] = ["another", (folds.loc[row, "fold"] + 1) % COUNT]
    return folds, {SAME_GROUPS: f"1 images have another group: {folds.loc[row, 'image_id']}"}


def empty_fold(manifest: pd.DataFrame, folds: pd.DataFrame) -> tuple[pd.DataFrame, Failures]:
    folds["fold"] = folds["fold"].replace(3, 4)
    return folds, {NUMBERED: "the folds are numbered [0, 1, 2, 4]; they should be 0 to 4, none of them empty"}


def holdout(manifest: pd.DataFrame, folds: pd.DataFrame) -> tuple[pd.DataFrame, Failures]:
    """One image of a lesion is held out, the other one is in the folds."""
    group = folds.loc[folds["group"].duplicated(), "group"].iloc[0]
    image = folds.loc[folds["group"] == group, "image_id"].iloc[0]
    manifest.loc[manifest["image_id"] == image, "split"] = "2017-test"
    return folds[folds["image_id"] != image], {HELD_OUT: f"1 groups lie in a fold and in a holdout: {group}"}


def failures(checks: list[Check]) -> Failures:
    return {check.name: "; ".join(check.failures) for check in checks if not check.passed}


def test_correct_folds_pass(manifest: pd.DataFrame, folds: pd.DataFrame) -> None:
    assert not failures(fold_checks(manifest, folds, COUNT))
    assert not failures(fold_checks(manifest, folds.sample(frac=1, random_state=0), COUNT))


@pytest.mark.parametrize(
    "tamper",
    [
        in_two_folds, missing, foreign, excluded, group_spread, spread_under_another_name, empty_fold, holdout,
    ],
)  # fmt: skip
def test_each_tampering_is_refused_by_its_name_and_nothing_else_is(
    tamper: Callable[[pd.DataFrame, pd.DataFrame], tuple[pd.DataFrame, Failures]],
    manifest: pd.DataFrame,
    folds: pd.DataFrame,
) -> None:
    tampered, expected = tamper(manifest, folds)
    assert failures(fold_checks(manifest, tampered, COUNT)) == expected


def test_a_fold_too_many_or_too_few_is_refused(manifest: pd.DataFrame, folds: pd.DataFrame) -> None:
    for count in (COUNT - 1, COUNT + 1):
        with pytest.raises(DataError, match=f"they should be 0 to {count - 1}"):
            require(fold_checks(manifest, folds, count))


def test_one_error_lists_every_failure() -> None:
    checks = [Check("one"), Check("two", ("first",)), Check("three", ("second", "third"))]
    with pytest.raises(DataError) as caught:
        require(checks, ", and nothing was trained")
    first, *lines, remedy = str(caught.value).splitlines()
    assert first == "2 of 3 checks of the data failed, and nothing was trained:"
    assert lines == ["  two: first", "  three: second", "  three: third"]
    assert "data prepare" in remedy
    require(checks[:1])
    with pytest.raises(DataError) as caught:
        require(
            [Check("one", ("what to do",), remedy=""), Check("two", ("a",), "copy"), Check("three", ("b",), "copy")]
        )
    assert str(caught.value).splitlines()[1:] == ["  one: what to do", "  two: a", "  three: b", "copy"]


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


def several(manifest: pd.DataFrame) -> pd.Index:
    """The rows of a lesion with two images."""
    group = manifest.loc[manifest["group"].duplicated(), "group"].iloc[0]
    return manifest.index[manifest["group"] == group]


def single(manifest: pd.DataFrame) -> int:
    """The row of a lesion with one image."""
    return int(manifest.index[~manifest["group"].duplicated(keep=False)][0])


def no_group(manifest: pd.DataFrame) -> Failures:
    row = single(manifest)
    manifest.loc[row, "group"] = None
    name = "every image has a group, a split and the hash of its file"
    return {name: f"1 images have no group: {manifest.loc[row, 'image_id']}"}


def unknown_split(manifest: pd.DataFrame) -> Failures:
    row = single(manifest)
    manifest.loc[row, "split"] = "validation"
    return {"every split is known": f"1 images are in 'validation': {manifest.loc[row, 'image_id']}"}


def official_test_in_the_pool(manifest: pd.DataFrame) -> Failures:
    row = single(manifest)
    manifest.loc[row, "listed"] = "2017-test+2019-train"
    expected = f"1 images that 2017-test+2019-train list are in 'train': {manifest.loc[row, 'image_id']}"
    return {"images of official holdouts are held out": expected}


def in_a_test_that_does_not_list_it(manifest: pd.DataFrame) -> Failures:
    row = single(manifest)
    manifest.loc[row, "split"] = "2018-test"
    expected = f"1 images that 2019-train list are in '2018-test': {manifest.loc[row, 'image_id']}"
    return {"images of official holdouts are held out": expected}


def straddling(manifest: pd.DataFrame) -> Failures:
    rows = several(manifest)
    manifest.loc[rows[0], "split"] = "holdout"
    expected = f"1 groups: {manifest.loc[rows[0], 'group']} ({', '.join(manifest.loc[rows, 'image_id'])})"
    return {"no group has images in the training pool and in a holdout": expected}


def torn_lesion(manifest: pd.DataFrame) -> Failures:
    """A lesion id on an image of another lesion, without a join."""
    donor, row = several(manifest)[0], single(manifest)
    lesion = manifest.loc[donor, "lesion_id"]
    manifest.loc[row, "lesion_id"] = lesion
    members = manifest[manifest["lesion_id"] == lesion]
    expected = f"1 in two groups: {lesion} ({some(members['image_id'])} in groups {some(set(members['group']))})"
    return {"no lesion lies in two groups": expected}


def same_file(manifest: pd.DataFrame) -> Failures:
    first, second = manifest.index[~manifest["group"].duplicated(keep=False)][:2]
    digest = manifest.loc[first, "source_sha256"]
    manifest.loc[second, "source_sha256"] = digest
    pair = manifest.loc[[first, second]]
    expected = f"1 in two groups: {digest} ({some(pair['image_id'])} in groups {some(pair['group'])})"
    return {"no copy of a file lies in another group": expected}


def label_of_two(manifest: pd.DataFrame) -> Failures:
    manifest.loc[single(manifest), "DF"] = 2
    return {
        "labels are 0, 1 or unknown": f"DF of 1 images is another value: {manifest.loc[single(manifest), 'image_id']}"
    }


def two_diagnoses(manifest: pd.DataFrame) -> Failures:
    row = manifest.index[manifest["MEL"] == 1][0]
    manifest.loc[row, "VASC"] = 1
    return {"no image has two diagnoses": f"1 images: {manifest.loc[row, 'image_id']}"}


def melanoma_and_akiec(manifest: pd.DataFrame) -> Failures:
    row = manifest.index[manifest["MEL"] == 1][0]
    manifest.loc[row, ["AK", "SCC", "AKIEC"]] = [float("nan"), float("nan"), 1]
    return {"no image has two diagnoses": f"1 images: {manifest.loc[row, 'image_id']}"}


def akiec_without_either(manifest: pd.DataFrame) -> Failures:
    row = manifest.index[manifest["AK"] == 1][0]
    manifest.loc[row, "AK"] = 0
    return {"AKIEC means AK or SCC": f"1 images contradict it: {manifest.loc[row, 'image_id']}"}


def either_without_akiec(manifest: pd.DataFrame) -> Failures:
    row = manifest.index[manifest["SCC"] == 1][0]
    manifest.loc[row, "AKIEC"] = 0
    return {"AKIEC means AK or SCC": f"1 images contradict it: {manifest.loc[row, 'image_id']}"}


def some(names: object) -> str:
    return ", ".join(sorted(str(name) for name in names))  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "tamper",
    [
        no_group, unknown_split, official_test_in_the_pool, in_a_test_that_does_not_list_it, straddling, torn_lesion,
        same_file, label_of_two, two_diagnoses, melanoma_and_akiec, akiec_without_either, either_without_akiec,
    ],
)  # fmt: skip
def test_each_leak_is_refused_by_its_name_and_nothing_else_is(
    tamper: Callable[[pd.DataFrame], Failures], manifest: pd.DataFrame, dataset: Dataset
) -> None:
    joins = read_side_table(dataset, JOINS)
    assert not failures(manifest_checks(manifest, joins))
    expected = tamper(manifest)
    assert failures(manifest_checks(manifest, joins)) == expected


@pytest.mark.parametrize("over", [(), ("ISIC_9999999",)], ids=["directly", "over an image without a file"])
def test_joined_images_in_two_groups_are_refused(over: tuple[str, ...], manifest: pd.DataFrame) -> None:
    """Also where the image that connects them is not in the data set."""
    first, second = manifest.loc[~manifest["group"].duplicated(keep=False), "image_id"][:2]
    chain = (first, *over, second)
    joins = pd.DataFrame({"image_id": chain[:-1], "other_id": chain[1:], "joined": True})
    pair = manifest[manifest["image_id"].isin([first, second])]
    expected = f"1 in two groups: {first} ({first}, {second} in groups {some(pair['group'])})"
    assert failures(manifest_checks(manifest, joins)) == {"joined images lie in one group": expected}
    assert not failures(manifest_checks(manifest, joins.assign(joined=False)))

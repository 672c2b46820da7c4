"""Checks before every training: labels and groups are consistent, and no group is on both sides of a split.

The same list of named checks becomes the table in the terminal, the page of ``data audit``, and the error that stops a
training.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import pandas as pd

from melanoma_dist import console
from melanoma_dist.data.folds import pool
from melanoma_dist.data.groups import EXCLUDED, HOLDOUT, TRAIN, group_images
from melanoma_dist.data.labels import contradicts_akiec, has_two_diagnoses, label_columns, targets
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.data.schema import AGAIN
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.data.splits import official_holdouts
from melanoma_dist.errors import DataError

_SHOWN = 3


@dataclass(frozen=True)
class Check:
    """A condition on the data, and the failures against it."""

    name: str
    failures: tuple[str, ...] = ()
    remedy: str = f"This must never be. {AGAIN} Report it if it stays."
    """Empty if the failures name their own remedy."""

    @property
    def passed(self) -> bool:
        """Whether there are no failures."""
        return not self.failures


def require(checks: Sequence[Check], consequence: str = "") -> None:
    """Raise one DataError that lists every failure, unless all checks passed."""
    failed = [check for check in checks if not check.passed]
    if failed:
        lines = [f"  {check.name}: {failure}" for check in failed for failure in check.failures]
        remedies = dict.fromkeys(check.remedy for check in failed if check.remedy)
        title = f"{len(failed)} of {len(checks)} checks of the data failed{consequence}:"
        raise DataError("\n".join((title, *lines, *remedies)))


def manifest_checks(images: pd.DataFrame, joins: pd.DataFrame) -> list[Check]:
    """The checks of a manifest, with the joins (`groups.join_same`) that its groups are built from."""
    keys = [key for key in ("lesion", "patient") if f"{key}_id" in images]
    return [
        Check("every image has a group, a split and the hash of its file", tuple(_blanks(images))),
        Check("every split is known", tuple(_unknown_splits(images))),
        Check("images of official holdouts are held out", tuple(_wrong_official_splits(images))),
        Check("no group has images in the training pool and in a holdout", tuple(_groups_on_both_sides(images))),
        *(Check(f"no {key} lies in two groups", tuple(_in_two_groups(images, f"{key}_id"))) for key in keys),
        Check("no copy of a file lies in another group", tuple(_in_two_groups(images, "source_sha256"))),
        Check("joined images lie in one group", tuple(_separated_joins(images, joins))),
        Check("labels are 0, 1 or unknown", tuple(_wrong_labels(images))),
        Check("no image has two diagnoses", _listed(images["image_id"][has_two_diagnoses(images)], "images")),
        Check("AKIEC means AK or SCC", _listed(images["image_id"][contradicts_akiec(images)], "images contradict it")),
    ]


def stored_check(dataset: Dataset) -> Check:
    """Read every image and mask and compare its CRC-32, with progress: this may take minutes."""
    reader = ShardReader(dataset)
    corrupt = []
    for row in console.progress(range(len(reader)), len(reader), "reading every image"):
        try:
            reader.jpeg(row), reader.mask(row)
        except DataError:
            corrupt.append(f"{reader.image_id(row)} in {dataset.manifest['shard'].iloc[row]}")
    failures = (f"{len(corrupt)} images, or their masks, are corrupt: {_some(corrupt)}",) if corrupt else ()
    return Check("every image and mask has its prepared bytes", failures, f"Copy the shards again, or: {AGAIN}")


def fold_checks(
    images: pd.DataFrame, folds: pd.DataFrame, count: int, members: pd.DataFrame | None = None
) -> list[Check]:
    """The checks of ``count`` folds (`folds.make_folds`) of a manifest; ``members``: its images to train on.

    By default these are all of the training pool.
    """
    members = pool(images) if members is None else members
    fold_counts = folds.groupby("group")["fold"].nunique()
    several = fold_counts.index[fold_counts > 1]
    return [
        Check("every image of the training pool lies in exactly one fold", tuple(_coverage(members, folds))),
        Check(f"there are {count} folds, none of them empty", tuple(_numbering(folds, count))),
        Check("the folds have the groups of the manifest", _wrong_groups(images, folds)),
        Check("no group lies in two folds", _listed(several, "groups lie in more than one fold")),
        *_patient_check(images, folds),
        Check(
            "no group lies in a fold and in a holdout",
            _listed(_held_out(images) & set(folds["group"]), "groups lie in a fold and in a holdout"),
        ),
    ]


def _patient_check(images: pd.DataFrame, folds: pd.DataFrame) -> Iterator[Check]:
    """The check of patients by themselves, without their groups; none if the tables name no patients."""
    if "patient_id" in images:
        patients = folds["image_id"].map(images.set_index("image_id")["patient_id"])
        counts = folds.groupby(patients.to_numpy())["fold"].nunique()
        yield Check("no patient lies in two folds", _listed(counts.index[counts > 1], "patients lie in two folds"))


def fold_table(manifest: pd.DataFrame, folds: pd.DataFrame, labels: tuple[str, ...]) -> list[list[str]]:
    """One row per fold: images, groups, and positives per label, with the unknown in parentheses if there are any."""
    images = manifest.set_index("image_id").loc[folds["image_id"]]
    truth = targets(images, labels)
    rows = []
    for fold in sorted(folds["fold"].unique()):
        inside = (folds["fold"] == fold).to_numpy()
        cells = []
        for column in truth[inside].T:
            unknown = int(pd.isna(column).sum())
            cells.append(f"{int((column == 1).sum())}" + (f" ({unknown} unknown)" if unknown else ""))
        rows.append([f"fold {fold}", str(inside.sum()), str(folds.loc[inside, "group"].nunique()), *cells])
    return rows


def _blanks(images: pd.DataFrame) -> Iterable[str]:
    for column in ("group", "split", "source_sha256"):
        blank = images["image_id"][images[column].isna() | (images[column] == "")]
        yield from _listed(blank, f"images have no {column}")


def _unknown_splits(images: pd.DataFrame) -> Iterable[str]:
    splits = images["split"].dropna()
    known = splits.isin([TRAIN, HOLDOUT, *official_holdouts(images)]) | splits.str.startswith(EXCLUDED)
    for split, names in images.loc[known.index[~known]].groupby("split")["image_id"]:
        yield f"{len(names)} images are in {split!r}: {_some(names)}"


def _wrong_official_splits(images: pd.DataFrame) -> Iterable[str]:
    """Images in a split that the official lists do not allow: a listed image must be in the holdout that lists it."""
    splits, holdouts = images[["listed", "split"]].drop_duplicates(), official_holdouts(images)
    for listed, split in splits[splits["split"].notna()].itertuples(index=False):
        official = holdouts.intersection(listed.split("+"))
        if split not in official if official else split in holdouts:
            names = images.loc[(images["listed"] == listed) & (images["split"] == split), "image_id"]
            yield f"{len(names)} images that {listed} list are in {split!r}: {_some(names)}"


def _groups_on_both_sides(images: pd.DataFrame) -> Iterable[str]:
    shared = set(pool(images)["group"]) & _held_out(images)
    if shared:
        yield f"{len(shared)} groups: {_some(_with_images(images, 'group', shared))}"


def _in_two_groups(images: pd.DataFrame, key: str) -> Iterable[str]:
    """Values of ``key`` whose images are in different groups."""
    pairs = images.loc[images[key].notna() & images["group"].notna(), [key, "group"]].drop_duplicates()
    values = pairs.loc[pairs[key].duplicated(), key].unique()
    if len(values):
        yield f"{len(values)} in two groups: {_some(_with_images(images, key, values))}"


def _separated_joins(images: pd.DataFrame, joins: pd.DataFrame) -> Iterable[str]:
    """Images that joins connect, directly or indirectly, but that have different groups.

    All joins count, also of images without a file, which are not in the manifest: two images may be connected by one.
    """
    joined = joins[joins["joined"]]
    ids = pd.Series(pd.unique(pd.concat([images["image_id"], joined["image_id"], joined["other_id"]])))
    connected = pd.Series(group_images(ids, joined).to_numpy(), index=ids)
    table = images[["image_id", "group"]].assign(connected=images["image_id"].map(connected))
    return _in_two_groups(table, "connected")


def _wrong_labels(images: pd.DataFrame) -> Iterable[str]:
    for label in label_columns(images):
        values = images[label]
        wrong = images["image_id"][values.notna() & ~values.isin([0, 1])]
        if len(wrong):
            yield f"{label} of {len(wrong)} images is another value: {_some(wrong)}"


def _coverage(members: pd.DataFrame, folds: pd.DataFrame) -> Iterable[str]:
    yield from _listed(folds.loc[folds["image_id"].duplicated(), "image_id"], "images lie in more than one fold")
    expected, actual = set(members["image_id"]), set(folds["image_id"])
    yield from _listed(expected - actual, "images of the pool lie in no fold")
    yield from _listed(actual - expected, "images are not of the pool")


def _numbering(folds: pd.DataFrame, count: int) -> Iterable[str]:
    numbers = sorted(int(number) for number in folds["fold"].unique())
    if numbers != list(range(count)):
        yield f"the folds are numbered {numbers}; they should be 0 to {count - 1}, none of them empty"


def _wrong_groups(images: pd.DataFrame, folds: pd.DataFrame) -> tuple[str, ...]:
    groups = images.set_index("image_id")["group"].reindex(folds["image_id"])
    foreign = groups.to_numpy() != folds["group"].to_numpy()
    return _listed(folds["image_id"][foreign], "images have another group")


def _held_out(images: pd.DataFrame) -> set[str]:
    """The groups with an image in a holdout."""
    return set(images.loc[(images["split"] != TRAIN) & ~images["split"].str.startswith(EXCLUDED, na=True), "group"])


def _with_images(images: pd.DataFrame, key: str, values: Iterable[str]) -> list[str]:
    """The first few values, each with its images and their groups."""
    texts = []
    for value in sorted(values)[: _SHOWN + 1]:
        rows = images[images[key] == value]
        members = _some(rows["image_id"])
        groups = "" if key == "group" else f" in groups {_some(rows['group'].unique())}"
        texts.append(f"{value} ({members}{groups})")
    return texts


def _listed(names: Collection[object] | pd.Series[str] | pd.Index[str], what: str) -> tuple[str, ...]:
    """One failure that counts and lists ``names``; none if there are no names."""
    return (f"{len(names)} {what}: {_some(names)}",) if len(names) else ()


def _some(names: Iterable[object]) -> str:
    listed = sorted(str(name) for name in names)
    return ", ".join(listed[:_SHOWN]) + (" ..." if len(listed) > _SHOWN else "")

"""Grouping, holdouts and folds on random data sets: random years, lesions, copies and official lists."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from melanoma_dist.data.audit.checks import fold_checks, manifest_checks, require
from melanoma_dist.data.folds import make_folds
from melanoma_dist.data.groups import (
    BYTES,
    LESION,
    NEAR,
    TRAIN,
    exclude_neighbours,
    group_images,
    hold_out_share,
    join_same,
    name_by_lesion,
)
from melanoma_dist.data.labels import DIAGNOSES, LABEL_COLUMNS
from melanoma_dist.errors import ConfigError

BRIEFLY = settings(max_examples=12, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
LISTS = ("2017-train", "2018-train", "2019-train", "2017-train+2019-train", "2017-test+2019-train", "2018-validation")


@dataclass(frozen=True)
class Photograph:
    """The known facts about one image. Few values, so that images share them."""

    diagnosis: str | None
    lesion: int | None
    file: int
    listed: str
    selected: bool


@dataclass(frozen=True)
class Case:
    """A random data set, and the choices of a preparation and of folds."""

    photographs: list[Photograph]
    near: list[tuple[int, int]]
    share: float
    seed: int
    folds: int


def photographs() -> st.SearchStrategy[Photograph]:
    # A third melanomas, and most of all in the pool: otherwise there is nothing to make folds of.
    return st.builds(
        Photograph,
        diagnosis=st.sampled_from(("MEL", "MEL", "MEL", "NV", "NV", "BCC", "AK", "SCC", None)),
        lesion=st.none() | st.integers(0, 60),
        file=st.integers(0, 400),
        listed=st.sampled_from((*LISTS[:4] * 4, *LISTS)),
        selected=st.sampled_from((True,) * 9 + (False,)),
    )


CASES = st.builds(
    Case,
    photographs=st.lists(photographs(), min_size=20, max_size=70),
    near=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), max_size=8),
    share=st.sampled_from((0.0, 0.1, 0.3)),
    seed=st.integers(0, 10),
    folds=st.integers(2, 5),
)


def tables(case: Case) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The merged table without groups, and the near-duplicates."""
    rows = []
    for number, photograph in enumerate(case.photographs):
        answers = {label: float(label == photograph.diagnosis) for label in DIAGNOSES}
        answers["AKIEC"] = float(photograph.diagnosis in ("AK", "SCC"))
        if photograph.diagnosis is None:
            answers["NV"] = float("nan")
        official = photograph.listed.split("+")[0]
        about = {
            "image_id": f"ISIC_{number:07d}",
            "years": "+".join(name[:4] for name in photograph.listed.split("+")),
            "listed": photograph.listed,
            "split": TRAIN if official.endswith("-train") else official,
            "lesion_id": None if photograph.lesion is None else f"LESION_{photograph.lesion}",
            "source_sha256": f"{photograph.file:064x}",
            "selected": photograph.selected,
        }
        rows.append({**about, **answers})
    table = pd.DataFrame(rows)
    ids = table["image_id"]
    pairs = [(ids[a % len(ids)], ids[b % len(ids)]) for a, b in case.near if a % len(ids) != b % len(ids)]
    near = pd.DataFrame(pairs, columns=["image_id", "other_id"]).assign(reason=NEAR, evidence="pixels")
    return table, near


def prepared(case: Case, table: pd.DataFrame, near: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The manifest and the joins, by the steps of `data prepare`. Unselected images connect others and are removed."""
    same = [join_same(table, key, reason) for key, reason in (("lesion_id", LESION), ("source_sha256", BYTES))]
    joins = pd.concat([*same, near], ignore_index=True).assign(joined=True)
    table = table.assign(group=name_by_lesion(group_images(table["image_id"], joins), table["lesion_id"]))
    table["split"] = exclude_neighbours(table)
    if case.share:
        table["split"] = hold_out_share(table, case.share, case.seed)
    return table[table["selected"]].drop(columns="selected").reset_index(drop=True), joins


def folds_of(case: Case, images: pd.DataFrame) -> pd.DataFrame | None:
    """The folds, or None if the data is too small for them."""
    try:
        return make_folds(images, DIAGNOSES, case.folds, case.seed)
    except ConfigError:
        return None


@BRIEFLY
@given(CASES)
def test_every_prepared_data_set_passes_every_check(case: Case) -> None:
    images, joins = prepared(case, *tables(case))
    require(manifest_checks(images, joins))
    pool = images[images["split"] == TRAIN]
    elsewhere = images[~images["split"].str.startswith((TRAIN, "excluded"))]
    assert not set(pool["group"]) & set(elsewhere["group"])
    official = images["listed"].str.contains("test|validation")
    assert (images.loc[official, "split"] == images.loc[official, "listed"].str.split("+").str[0]).all()
    folds = folds_of(case, images)
    if folds is None:
        return
    require(fold_checks(images, folds, case.folds))
    validating = [set(folds.loc[folds["fold"] == fold, "image_id"]) for fold in range(case.folds)]
    assert sum(map(len, validating)) == len(pool)
    assert set.union(*validating) == set(pool["image_id"])
    groups = folds["image_id"].map(images.set_index("image_id")["group"])
    assert (folds.groupby(groups.to_numpy())["fold"].nunique() == 1).all()
    assert not set(groups) & set(elsewhere["group"])


@BRIEFLY
@given(CASES, st.integers(0, 1000))
def test_groups_and_folds_do_not_depend_on_the_order_of_rows_and_joins(case: Case, order: int) -> None:
    table, near = tables(case)
    images, _ = prepared(case, table, near)
    turned = near.rename(columns={"image_id": "other_id", "other_id": "image_id"})
    shuffled = table.sample(frac=1, random_state=order)
    again, other_joins = prepared(case, shuffled, turned.sample(frac=1, random_state=order))
    pd.testing.assert_frame_equal(again.sort_values("image_id", ignore_index=True), images)
    require(manifest_checks(again, other_joins))
    folds, others = folds_of(case, images), folds_of(case, again)
    assert (folds is None) == (others is None)
    if folds is not None and others is not None:
        pd.testing.assert_frame_equal(others, folds)


@BRIEFLY
@given(
    lesions=st.lists(
        st.tuples(st.sampled_from(("MEL", "NV", "BCC")), st.sampled_from(("2018", "2019")), st.integers(1, 3)),
        min_size=30,
        max_size=70,
    ),
    folds=st.integers(2, 5),
    seed=st.integers(0, 10),
)
def test_each_stratum_is_spread_evenly(lesions: list[tuple[str, str, int]], folds: int, seed: int) -> None:
    """Of a stratum (labels and year) with as many images as folds or more, two folds differ by no more images than its
    largest lesion has: by one where each was photographed once.

    Not so for groups whose images have different labels or years: of those, differences of twice as many occur.
    """
    rows = [
        {"group": f"lesion-{number}", "years": year, "split": TRAIN, "stratum": f"{name} {year}"}
        | {label: float(label == name) for label in LABEL_COLUMNS}
        for number, (name, year, images) in enumerate(lesions)
        for _ in range(images)
    ]
    images = pd.DataFrame(rows)
    images["image_id"] = [f"ISIC_{number:07d}" for number in range(len(images))]
    try:
        table = make_folds(images, DIAGNOSES, folds, seed)
    except ConfigError:
        return
    for stratum, members in images.groupby("stratum"):
        if len(members) >= folds:
            counts = table["fold"][members.index].value_counts().reindex(range(folds), fill_value=0)
            largest = members["group"].value_counts().max()
            assert counts.max() - counts.min() <= largest, stratum

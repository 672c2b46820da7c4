from __future__ import annotations

import pandas as pd
import pytest

from melanoma_dist.data.groups import (
    BYTES,
    LESION,
    exclude_neighbours,
    group_images,
    hold_out_share,
    join_same,
    name_by_lesion,
)
from melanoma_dist.data.labels import LABEL_COLUMNS


def test_groups_join_across_every_shared_key() -> None:
    rows = [
        ("a", "L1", "x"),
        ("b", "L1", "y"),
        ("c", None, "y"),
        ("d", "L2", "z"),
        ("e", None, "w"),
        ("f", None, "w"),
        ("g", None, "v"),
    ]
    table = pd.DataFrame(rows, columns=["image_id", "lesion_id", "sha"])
    joins = pd.concat([join_same(table, "lesion_id", LESION), join_same(table, "sha", BYTES)])
    assert [tuple(row) for row in joins.itertuples(index=False)] == [
        ("a", "b", "lesion", "L1"),
        ("b", "c", "same bytes", "y"),
        ("e", "f", "same bytes", "w"),
    ]
    groups = group_images(table["image_id"], joins)
    assert list(groups) == ["a", "a", "a", "d", "e", "e", "g"]
    assert list(name_by_lesion(groups, table["lesion_id"])) == ["L1", "L1", "L1", "L2", "e", "e", "g"]


def test_a_lesion_with_the_name_of_an_image_does_not_join_it() -> None:
    groups = pd.Series(["7", "scan", "scan-2", "9"])
    lesions = pd.Series([None, "7", "scan-2", "9"], dtype="str")
    assert list(name_by_lesion(groups, lesions)) == ["7", "scan", "scan-2", "9"]


def test_an_image_with_two_lesion_ids_joins_both_lesions() -> None:
    known = pd.DataFrame({"image_id": ["a", "b", "b", "c"], "lesion_id": ["L1", "L1", "L2", "L2"]})
    assert group_images(pd.Series(["a", "b", "c"]), join_same(known, "lesion_id", LESION)).nunique() == 1


def pool(groups: int, label: str = "NV") -> pd.DataFrame:
    """``groups`` lesions with two images each."""
    answers = {name: float(name == label) for name in LABEL_COLUMNS}
    names = [f"{label}-{number:04d}" for number in range(groups)]
    rows = [(f"{name}-{view}", name, "train", True) for name in names for view in "ab"]
    return pd.DataFrame(rows, columns=["image_id", "group", "split", "selected"]).assign(**answers)


def test_a_held_out_share_is_whole_groups_stratified_by_label() -> None:
    table = pd.concat([pool(400), pool(50, "MEL"), pool(7, "DF")], ignore_index=True)
    table.loc[0, "split"] = "2017-test"
    split = hold_out_share(table, 0.1, seed=0)
    held = table[split == "holdout"]
    assert held.groupby("group").size().eq(2).all()
    assert held["group"].str[:2].value_counts().div(2).to_dict() == {"NV": 40, "ME": 5, "DF": 1}
    assert split[0] == "2017-test"
    assert exclude_neighbours(table.assign(split=split)).value_counts()["holdout"] == len(held)


def test_held_out_groups_depend_on_the_seed_and_not_on_the_order() -> None:
    table = pool(200)
    split = hold_out_share(table, 0.2, seed=1)
    shuffled = table.sample(frac=1, random_state=0)
    pd.testing.assert_series_equal(hold_out_share(shuffled, 0.2, seed=1).sort_index(), split)
    assert (hold_out_share(table, 0.2, seed=2) != split).any()
    more = pd.concat([table, pool(20, "MEL")], ignore_index=True)
    pd.testing.assert_series_equal(hold_out_share(more, 0.2, seed=1)[: len(table)], split, check_names=False)


@pytest.mark.parametrize("share", [0.1, 0.5])
def test_images_that_the_request_does_not_select_do_not_count_in_a_share(share: float) -> None:
    table = pd.concat([pool(100), pool(100, "NV").assign(selected=False, group="else")], ignore_index=True)
    held = hold_out_share(table, share, seed=0) == "holdout"
    assert held.sum() == 200 * share

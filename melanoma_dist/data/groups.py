"""What belongs together: joins of two images with their reason, the groups that follow, and what a holdout takes.

A join says that two images must never lie on both sides of a split: they show one lesion, are one file, or are copies
that a tool has written anew. Groups are the connected components of the joins, and nothing else makes them.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from melanoma_dist.data.labels import LABEL_COLUMNS, targets

TRAIN = "train"
HOLDOUT = "holdout"
"""The split of groups that ``--holdout`` keeps out, beside the official ones such as "2017-test"."""
EXCLUDED = "excluded: "
"""How the split of a training image begins whose group reaches into a holdout."""

LESION, BYTES, NEAR = "lesion", "same bytes", "near-duplicate"


def join_same(table: pd.DataFrame, key: str, reason: str) -> pd.DataFrame:
    """Joins of the rows that share a value of ``key``: the first image id with each of the others.

    Columns: image_id, other_id, reason, and ``key`` as ``evidence``. Rows without a value join nothing.
    """
    known = table.loc[table[key].notna(), ["image_id", key]].drop_duplicates()
    first = known.groupby(key)["image_id"].transform("min")
    others = known[first != known["image_id"]]
    joins = pd.DataFrame(
        {"image_id": first.loc[others.index], "other_id": others["image_id"], "reason": reason, "evidence": others[key]}
    )
    return joins.sort_values(["image_id", "other_id"], ignore_index=True)


def group_images(image_ids: pd.Series[str], joins: pd.DataFrame) -> pd.Series[str]:
    """The group of each image: a name shared by exactly those that joins connect, directly or over others.

    A group is named by the first of its image ids. ``image_ids`` is unique and holds every id of ``joins``.
    """
    index = pd.Index(image_ids)
    ends = tuple(index.get_indexer(pd.Index(joins[side])) for side in ("image_id", "other_id"))
    edges = coo_matrix((np.ones(len(joins), dtype=np.int8), ends), shape=(len(index), len(index)))
    component = pd.Series(connected_components(edges, directed=False)[1], index=image_ids.index)
    return image_ids.groupby(component).transform("min").rename("group")


def name_by_lesion(groups: pd.Series[str], lesions: pd.Series[str]) -> pd.Series[str]:
    """Groups under the first lesion id of their images, where they have one."""
    lesion = lesions.groupby(groups).transform("min")
    return lesion.where(lesion.notna(), groups).rename("group")


def exclude_neighbours(table: pd.DataFrame) -> pd.Series[str]:
    """The split of each row, where a training image whose group reaches into a holdout becomes "excluded: ..."."""
    holdouts = (
        table[table["split"] != TRAIN].groupby("group")["split"].agg(lambda splits: ", ".join(sorted(set(splits))))
    )
    if holdouts.empty:
        return table["split"]
    reached = table["group"].map(holdouts)
    excluded = (table["split"] == TRAIN) & reached.notna()
    return table["split"].mask(excluded, EXCLUDED + "lesion or copy in " + reached)


def hold_out_share(table: pd.DataFrame, share: float, seed: int) -> pd.Series[str]:
    """The split of each row, with ``share`` (0 to 1) of the training pool's groups in the split "holdout".

    Stratified by the groups' labels. Which groups of a stratum go is decided by a hash of the seed and the group's
    name: file order has no influence, and a group added later moves few others.
    """
    pool = table[table["wanted"] & (table["split"] == TRAIN)]
    truth = pd.DataFrame(targets(pool, LABEL_COLUMNS), index=pool["group"]).fillna(-1).astype(int)
    strata = truth.groupby(level=0).max().astype(str).agg("".join, axis=1)
    draws = strata.index.map(lambda group: hashlib.sha256(f"{seed} {group}".encode()).hexdigest())
    order = pd.DataFrame({"stratum": strata, "draw": draws}, index=strata.index).groupby("stratum")["draw"].rank()
    chosen = order.index[order <= (strata.map(strata.value_counts()) * share).round()]
    return table["split"].mask((table["split"] == TRAIN) & table["group"].isin(chosen), HOLDOUT)

"""Groups of images that must stay on one side of every split, and holdouts of whole groups.

A join connects two images that share a lesion, a patient or a file, or that are re-encoded copies. Groups are the
connected components of the joins.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from melanoma_dist.data.labels import label_columns, targets

TRAIN = "train"
HOLDOUT = "holdout"
"""The split that ``--holdout`` makes, beside official ones such as "2017-test"."""
EXCLUDED = "excluded: "
"""Prefix of the split of a training image whose group has an image in a holdout."""

LESION, PATIENT, LISTED, BYTES, NEAR = "lesion", "patient", "listed copy", "same bytes", "near-duplicate"
"""The reasons of joins."""


def join_same(table: pd.DataFrame, key: str, reason: str) -> pd.DataFrame:
    """Join the rows that share a value of ``key``: the first image id with each of the others.

    Columns: image_id, other_id, reason, and ``key`` as ``evidence``. Blanks join nothing.
    """
    known = table.loc[table[key].notna(), ["image_id", key]].drop_duplicates()
    first = known.groupby(key)["image_id"].transform("min")
    others = known[first != known["image_id"]]
    joins = pd.DataFrame(
        {"image_id": first.loc[others.index], "other_id": others["image_id"], "reason": reason, "evidence": others[key]}
    )
    return joins.sort_values(["image_id", "other_id"], ignore_index=True)


def join_pairs(pairs: Sequence[tuple[str, str]], evidence: str) -> pd.DataFrame:
    """Join pairs of image ids that a collection lists as copies. Columns as of `join_same`."""
    rows = [(*sorted(pair), LISTED, evidence) for pair in sorted(set(pairs))]
    return pd.DataFrame(rows, columns=["image_id", "other_id", "reason", "evidence"], dtype="str")


def group_images(image_ids: pd.Series[str], joins: pd.DataFrame) -> pd.Series[str]:
    """The group of each image: images have the same group if and only if joins connect them, directly or indirectly.

    The first image id names the group. ``image_ids`` is unique and contains every id of ``joins``.
    """
    from scipy.sparse import coo_matrix  # ranks and most commands join nothing: they need not load it
    from scipy.sparse.csgraph import connected_components

    index = pd.Index(image_ids)
    ends = tuple(index.get_indexer(pd.Index(joins[side])) for side in ("image_id", "other_id"))
    edges = coo_matrix((np.ones(len(joins), dtype=np.int8), ends), shape=(len(index), len(index)))
    component = pd.Series(connected_components(edges, directed=False)[1], index=image_ids.index)
    return image_ids.groupby(component).transform("min").rename("group")


def name_by_lesion(groups: pd.Series[str], lesions: pd.Series[str]) -> pd.Series[str]:
    """Rename each group to the first lesion id of its images, if it has one.

    A lesion id that is the name of another group, an image id, renames nothing: the two would become one.
    """
    lesion = lesions.groupby(groups).transform("min")
    taken = lesion.isin(set(groups)) & (lesion != groups)
    return lesion.where(lesion.notna() & ~taken, groups).rename("group")


def exclude_neighbours(table: pd.DataFrame) -> pd.Series[str]:
    """The split of each row. A training image whose group has an image in a holdout becomes "excluded: ..."."""
    holdouts = (
        table[table["split"] != TRAIN].groupby("group")["split"].agg(lambda splits: ", ".join(sorted(set(splits))))
    )
    if holdouts.empty:
        return table["split"]
    reached = table["group"].map(holdouts)
    excluded = (table["split"] == TRAIN) & reached.notna()
    # The text is part of the data fingerprint: it does not name patients either, where a patient is the reason.
    return table["split"].mask(excluded, EXCLUDED + "lesion or copy in " + reached)


def hold_out_share(table: pd.DataFrame, share: float, seed: int) -> pd.Series[str]:
    """The split of each row, with ``share`` (0 to 1) of the training pool's groups in the split "holdout".

    Stratified by the groups' labels. A hash of the seed and the group's name decides which groups of a stratum are
    held out: file order has no influence, and a group added later moves few others.
    """
    pool = table[table["selected"] & (table["split"] == TRAIN)]
    truth = pd.DataFrame(targets(pool, label_columns(pool)), index=pool["group"]).fillna(-1).astype(int)
    strata = truth.groupby(level=0).max().astype(str).agg("".join, axis=1)
    draws = strata.index.map(lambda group: hashlib.sha256(f"{seed} {group}".encode()).hexdigest())
    order = pd.DataFrame({"stratum": strata, "draw": draws}, index=strata.index).groupby("stratum")["draw"].rank()
    chosen = order.index[order <= (strata.map(strata.value_counts()) * share).round()]
    return table["split"].mask((table["split"] == TRAIN) & table["group"].isin(chosen), HOLDOUT)


def groups_in_words(images: pd.DataFrame) -> str:
    """The word for groups of images: lesions, or patients where the tables name those of all images."""
    patients = images.get("patient_id")
    if patients is None or patients.isna().all():
        return "lesions"
    return "patients" if patients.notna().all() else "lesions or patients"

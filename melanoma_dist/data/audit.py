"""The proof, made before every training, that no lesion stands on both sides of a split."""

from __future__ import annotations

import pandas as pd

from melanoma_dist.data.folds import pool
from melanoma_dist.data.labels import targets
from melanoma_dist.errors import DataError


def check_folds(manifest: pd.DataFrame, folds: pd.DataFrame, count: int) -> None:
    """Raise DataError unless the folds are disjoint, cover the pool, keep groups whole and touch no holdout."""
    complaints = [
        *_coverage(manifest, folds),
        *_numbering(folds, count),
        *_leakage(manifest, folds),
    ]
    if complaints:
        raise DataError("The folds are not sound, and nothing was trained:\n  " + "\n  ".join(complaints))


def fold_table(manifest: pd.DataFrame, folds: pd.DataFrame, labels: tuple[str, ...]) -> list[list[str]]:
    """A row per fold: images, groups, and per label the positives (and the unknown where there are any)."""
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


def _coverage(manifest: pd.DataFrame, folds: pd.DataFrame) -> list[str]:
    complaints = []
    twice = folds.loc[folds["image_id"].duplicated(), "image_id"]
    if len(twice):
        complaints.append(f"{len(twice)} images lie in more than one fold: {_some(twice)}")
    expected = set(pool(manifest)["image_id"])
    found = set(folds["image_id"])
    if expected - found:
        complaints.append(f"{len(expected - found)} images of the pool lie in no fold: {_some(expected - found)}")
    if found - expected:
        complaints.append(f"{len(found - expected)} images are not of the pool: {_some(found - expected)}")
    return complaints


def _numbering(folds: pd.DataFrame, count: int) -> list[str]:
    numbers = sorted(int(number) for number in folds["fold"].unique())
    if numbers != list(range(count)):
        return [f"the folds are numbered {numbers}; they should be 0 to {count - 1}, none of them empty"]
    return []


def _leakage(manifest: pd.DataFrame, folds: pd.DataFrame) -> list[str]:
    complaints = []
    groups = manifest.set_index("image_id")["group"].reindex(folds["image_id"])
    if not (groups.to_numpy() == folds["group"].to_numpy()).all():
        complaints.append("groups of the folds are not those of the manifest")
    spread = folds.groupby("group")["fold"].nunique()
    if (spread > 1).any():
        complaints.append(
            f"{int((spread > 1).sum())} groups lie in more than one fold: {_some(spread.index[spread > 1])}"
        )
    held_out = set(manifest.loc[~manifest["split"].str.startswith(("train", "excluded")), "group"])
    shared = held_out & set(folds["group"])
    if shared:
        complaints.append(f"{len(shared)} groups lie in a fold and in a holdout: {_some(shared)}")
    return complaints


def _some(names: object) -> str:
    listed = sorted(str(name) for name in names)  # type: ignore[attr-defined]
    return ", ".join(listed[:3]) + (" ..." if len(listed) > 3 else "")

"""The messages at the end of ``data prepare`` and ``data prepare --manifest-only``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from melanoma_dist import console
from melanoma_dist.data import manifest
from melanoma_dist.data.audit import counts
from melanoma_dist.data.groups import NEAR
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.data.raw_folder import count_by_folder
from melanoma_dist.data.sources.registry import accepted_gaps, warnings_about
from melanoma_dist.data.sources.source import Collection


def show_inputs(raw: Path, collections: Sequence[Collection], images: Sequence[Path]) -> None:
    """Print which files were taken for what."""
    for each in collections:
        for remark in each.remarks:
            console.info(f"{each.name}{'' if each.selected else ' (only lesions and official splits)'}: {remark}")
    console.info(f"images: {count_by_folder(raw, images)}.")


def show_dataset(dataset: Dataset, collections: Sequence[Collection], notes: Sequence[str] = ()) -> None:
    """Print counts by year, label and split, the joins, and what was left out; ``notes``: further warnings."""
    images = dataset.manifest
    missing, quarantine, joins = (
        pd.read_parquet(dataset.folder / name) for name in (manifest.MISSING, manifest.QUARANTINE, manifest.JOINS)
    )
    without_file, prepared = set(missing["image_id"]), set(images["image_id"])
    rows = []
    for name, ids in _ids(collections).items():
        part = images[images["image_id"].isin(ids)]
        quarantined = len(ids - prepared - without_file)
        rows.append((name, len(ids), len(ids & without_file), quarantined, len(part), part["group"].nunique()))
    console.table("Images", ("year", "listed", "missing", "quarantined", "prepared", "groups"), rows)
    console.table(*counts.labels(images))
    _show_splits(images)
    if (masks := counts.masks(dataset)).rows:
        console.table(*masks)
    present = counts.joins_within(images, joins)
    if present["joined"].any():
        reasons = present[present["joined"]].groupby("reason").size()
        console.table("Joined into groups", ("reason", "pairs"), [*reasons.items()])
    rejected = present[(present["reason"] == NEAR) & ~present["joined"]]
    if len(rejected):
        console.info(f"{len(rejected)} pairs look alike but differ in their details: not joined.")
    for _, row in quarantine.head(5).iterrows():
        console.info(f"quarantined {row['source']}: {row['reason']}")
    if len(quarantine):
        console.info(f"{len(quarantine)} files cannot be read or show nothing: {dataset.folder / manifest.QUARANTINE}")
    for text in (*warnings_about(collections), *notes, *accepted_gaps(collections, images)):
        console.info(text)
    console.info(
        f"{dataset.folder}: {len(images)} images, fingerprint {dataset.fingerprint[:12]}. "
        f"`data audit --data {dataset.folder}` shows its content."
    )


def show_plan(plan: pd.DataFrame, collections: Sequence[Collection], path: Path) -> None:
    """Print what the tables show without pixels."""
    rows = []
    for name, ids in _ids(collections).items():
        part = plan[plan["image_id"].isin(ids)]
        lesions = part["lesion_id"].dropna()
        on_disk, groups = int(part["on_disk"].sum()), part["group"].nunique()
        rows.append((name, len(part), on_disk, groups, lesions.nunique(), len(lesions)))
    header = ("year", "listed", "on disk", "groups", "lesions", "images with lesion id")
    console.table("Images", header, rows)
    console.table(*counts.labels(plan))
    overlaps = counts.overlaps(plan)
    if overlaps.rows:
        console.table(*overlaps)
    _show_splits(plan)
    for text in (*warnings_about(collections), *accepted_gaps(collections, plan)):
        console.info(text)
    console.info(f"plan: {path}. It does not contain copies, which only pixels show.")


def _ids(collections: Sequence[Collection]) -> dict[str, set[str]]:
    """The images of each selected collection, and of all together."""
    ids = {each.name: set(each.records["image_id"]) for each in collections if each.selected}
    return {**ids, "together": set().union(*ids.values())}


def _show_splits(images: pd.DataFrame) -> None:
    splits = images.groupby("split")["group"].agg(["size", "nunique"])
    console.table("Splits", ("split", "images", "groups"), [(split, *row) for split, row in splits.iterrows()])

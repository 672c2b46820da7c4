"""What a person is told at the end of ``data prepare`` and ``data prepare --manifest-only``."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from melanoma_dist import console
from melanoma_dist.data import manifest
from melanoma_dist.data.audit import counts
from melanoma_dist.data.groups import NEAR
from melanoma_dist.data.isic import Year
from melanoma_dist.data.manifest import Dataset

_TEST_TABLE_2017 = "ISIC-2017_Test_v2_Part3_GroundTruth.csv"


def notes(years: list[Year]) -> list[str]:
    """What was left out, and what could not be known: sentences for people who will report on the data."""
    told = [f"{year.year}: {note}." for year in years if year.wanted for note in year.notes]
    splits = {split for year in years for split in year.records["split"].unique()}
    wanted = {year.year for year in years if year.wanted}
    if 2019 in wanted and "2017-test" not in splits:
        told.append(
            f"2019's training set contains 595 of the 600 test images of 2017, and without 2017/{_TEST_TABLE_2017} "
            "nothing tells which: they are in the training pool. Report no figure on the 2017 test set."
        )
    if 2019 in wanted and "2017-validation" not in splits:
        told.append("2019's training set contains 2017's 150 validation images: without their table they stay in it.")
    if 2017 in wanted and 2019 not in {year.year for year in years}:
        told.append(
            "2017 names no lesions; 2019's metadata does, and is not there: of 2017 only copies are kept together. "
            "`data download --years 2019 --parts labels` gets it."
        )
    return told


def show_dataset(dataset: Dataset, years: list[Year]) -> None:
    """Counts by year, label and split, the joins, and what was left out."""
    images = dataset.manifest
    missing, quarantine, joins = (
        pd.read_parquet(dataset.folder / name) for name in (manifest.MISSING, manifest.QUARANTINE, manifest.JOINS)
    )
    gone, kept = set(missing["image_id"]), set(images["image_id"])
    rows = []
    for name, ids in _ids(years).items():
        part = images[images["image_id"].isin(ids)]
        lost = len(ids - kept - gone)
        rows.append((name, len(ids), len(ids & gone), lost, len(part), part["group"].nunique()))
    console.table("Images", ("year", "labelled", "missing", "unreadable", "prepared", "groups"), rows)
    console.table(*counts.labels(images))
    _show_splits(images)
    here = joins[joins["image_id"].isin(kept) & joins["other_id"].isin(kept)]
    if here["joined"].any():
        reasons = here[here["joined"]].groupby("reason").size()
        console.table("Joined into groups", ("reason", "pairs"), [*reasons.items()])
    refused = here[(here["reason"] == NEAR) & ~here["joined"]]
    if len(refused):
        console.info(f"{len(refused)} pairs that look alike differ in their details, and were not joined.")
    for _, row in quarantine.head(5).iterrows():
        console.info(f"quarantined {row['source']}: {row['reason']}")
    if len(quarantine):
        console.info(f"{len(quarantine)} files could not be read: {dataset.folder / manifest.QUARANTINE}")
    for note in notes(years):
        console.info(note)
    console.info(
        f"{dataset.folder}: {len(images)} images, fingerprint {dataset.fingerprint[:12]}. "
        f"`data audit --data {dataset.folder}` shows what is in it."
    )


def show_plan(plan: pd.DataFrame, years: list[Year], path: Path) -> None:
    """What the tables alone tell."""
    rows = []
    for name, ids in _ids(years).items():
        part = plan[plan["image_id"].isin(ids)]
        named = part.loc[part["lesion_id"].notna(), "lesion_id"]
        rows.append((name, len(part), int(part["on_disk"].sum()), part["group"].nunique(), named.nunique(), len(named)))
    header = ("year", "labelled", "on disk", "groups", "lesions named", "images with one")
    console.table("Images", header, rows)
    suffixed = [(year.year, int(year.records["downsampled"].sum())) for year in years if year.wanted]
    for year, count in suffixed:
        if count:
            console.info(f"{year}: {count} ids carry the suffix _downsampled, which is no part of the id.")
    console.table(*counts.labels(plan))
    overlaps = counts.overlaps(plan)
    if overlaps.rows:
        console.table(*overlaps)
    _show_splits(plan)
    for note in notes(years):
        console.info(note)
    console.info(f"plan: {path}. Copies are not in it: only pixels tell them.")


def _ids(years: list[Year]) -> dict[str, set[str]]:
    """The labelled images of each wanted year, and of all together."""
    wanted = [year for year in years if year.wanted]
    together = set().union(*(year.records["image_id"] for year in wanted))
    return {**{str(year.year): set(year.records["image_id"]) for year in wanted}, "together": together}


def _show_splits(images: pd.DataFrame) -> None:
    splits = images.groupby("split")["group"].agg(["size", "nunique"])
    console.table("Splits", ("split", "images", "groups"), [(split, *row) for split, row in splits.iterrows()])

"""Everything ``data audit`` tells of a data set, gathered once: its tables, its folds, and the checks of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from melanoma_dist import console
from melanoma_dist.data import manifest
from melanoma_dist.data.audit import figures
from melanoma_dist.data.audit.checks import Check, fold_checks, fold_table, manifest_checks, stored_check
from melanoma_dist.data.audit.figures import Figure
from melanoma_dist.data.demo import open_dataset
from melanoma_dist.data.folds import make_folds
from melanoma_dist.data.groups import LESION
from melanoma_dist.data.labels import LABEL_SETS, check_label_set
from melanoma_dist.data.manifest import Dataset, read_beside, read_description
from melanoma_dist.errors import UserError

SYNTHETIC = "SYNTHETIC DATA: drawn by this program. Nothing here says anything about melanoma."


@dataclass(frozen=True)
class Request:
    """Which data set to look at, and which folds of it."""

    data: str
    """A prepared folder, its URL, or "demo"."""
    labels: str
    """The name of a label set, `labels.LABEL_SETS`."""
    folds: int
    seed: int
    """Of the folds, and of the images that the page shows."""


@dataclass(frozen=True)
class Inspection:
    """What was found."""

    request: Request
    dataset: Dataset
    description: dict[str, Any]
    """``dataset.json``."""
    joins: pd.DataFrame
    """Those of two images that are both in the data set."""
    figures: list[Figure]
    checks: list[Check]
    stored: Check
    """The one of them that reads every image."""

    @property
    def notes(self) -> list[str]:
        """What the preparation left out or could not know."""
        return list(self.description["notes"])

    @property
    def copies(self) -> pd.DataFrame:
        """The joins, made or refused, that pixels and bytes gave."""
        return self.joins[self.joins["reason"] != LESION]


def inspect(request: Request) -> Inspection:
    """Read a data set, prove it and count it. What fails a check is told by the check; nothing is written.

    Raises DataError for a folder that is no whole data set.
    """
    dataset = open_dataset(request.data)
    images = dataset.manifest
    joins, missing, quarantine = (
        read_beside(dataset, name) for name in (manifest.JOINS, manifest.MISSING, manifest.QUARANTINE)
    )
    checks = manifest_checks(images, joins)
    present = figures.here(images, joins)
    told = [
        figures.years(images, missing),
        figures.splits(images),
        figures.labels(images),
        figures.absent(missing, quarantine),
        figures.overlaps(images),
        figures.reasons(present),
        figures.group_sizes(images),
    ]
    if all(check.passed for check in checks):  # folds of unsound data would only hide what is wrong with it
        folds, about_folds = _folds(images, request)
        checks, told = checks + about_folds, told + folds
    stored = stored_check(dataset)
    return Inspection(request, dataset, read_description(dataset.folder), present, told, [*checks, stored], stored)


def show(inspection: Inspection) -> None:
    """Print the figures that have rows, and every check with its verdict."""
    dataset = inspection.dataset
    console.say(f"{dataset.folder}: {len(dataset.manifest)} images, fingerprint {dataset.fingerprint[:12]}")
    if dataset.synthetic:
        console.say(SYNTHETIC)
    for title, header, rows in inspection.figures:
        if rows:
            console.show_table(title, header, rows)
    for note in inspection.notes:
        console.say(note)
    verdicts = [(check.name, "passed" if check.passed else "FAILED") for check in inspection.checks]
    console.show_table("Checks", ("check", "verdict"), verdicts)


def _folds(images: pd.DataFrame, request: Request) -> tuple[list[Figure], list[Check]]:
    """The folds that a training with these labels, this number and this seed would use."""
    name = f"{request.folds} folds can be made for --labels {request.labels}"
    try:
        check_label_set(images, request.labels)
        labels = LABEL_SETS[request.labels]
        folds = make_folds(images, labels, request.folds, request.seed)
    except UserError as error:
        return [], [Check(name, (str(error),), remedy="")]
    title = f"Folds of --labels {request.labels} --seed {request.seed}: positives per label"
    table = Figure(title, ("", "images", "lesions", *labels), fold_table(images, folds, labels))
    return [table], [Check(name), *fold_checks(images, folds, request.folds)]

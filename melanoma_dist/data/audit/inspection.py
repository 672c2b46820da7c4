"""What ``data audit`` reports about a data set: counts, folds and checks."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pandas as pd

from melanoma_dist import console
from melanoma_dist.config.data import AuditConfig
from melanoma_dist.config.label_sets import label_set
from melanoma_dist.config.places import find_data
from melanoma_dist.data import manifest
from melanoma_dist.data.audit import counts
from melanoma_dist.data.audit.checks import Check, fold_checks, fold_table, manifest_checks, stored_check
from melanoma_dist.data.audit.counts import CountTable
from melanoma_dist.data.demo import open_dataset
from melanoma_dist.data.folds import labelled_pool, make_folds
from melanoma_dist.data.groups import LESION, PATIENT, groups_in_words
from melanoma_dist.data.labels import check_label_set, supported_label_sets
from melanoma_dist.data.manifest import Dataset, Description, read_description, read_side_table
from melanoma_dist.errors import UserError

SYNTHETIC = "SYNTHETIC DATA: drawn by this program. Nothing here says anything about melanoma."


@dataclass(frozen=True)
class Inspection:
    """The result of an audit."""

    request: AuditConfig
    dataset: Dataset
    description: Description
    joins: pd.DataFrame
    """Only joins between two images of the data set."""
    tables: list[CountTable]
    checks: list[Check]
    stored: Check
    """The check that reads every image; also in `checks`."""

    @property
    def copies(self) -> pd.DataFrame:
        """Joins, accepted or rejected, that come from bytes or pixels, not from a table."""
        return self.joins[~self.joins["reason"].isin([LESION, PATIENT])]


def inspect(request: AuditConfig) -> Inspection:
    """Read a data set, check it and count it; writes nothing. Failures stand in the checks.

    Raises DataError if the folder is not a complete data set.
    """
    dataset = open_dataset(request.data or find_data())
    images = dataset.manifest
    if request.labels == "largest":  # without any, the check of the folds says why
        request = replace(request, labels=next(iter(supported_label_sets(images)), "isic2019"))
    joins, missing, quarantine = (
        read_side_table(dataset, name) for name in (manifest.JOINS, manifest.MISSING, manifest.QUARANTINE)
    )
    checks = manifest_checks(images, joins)
    present = counts.joins_within(images, joins)
    tables = [
        counts.years(images, missing),
        counts.patients(images),
        counts.splits(images),
        counts.labels(images),
        counts.masks(dataset),
        counts.absent(missing, quarantine),
        counts.overlaps(images),
        counts.reasons(present),
        counts.group_sizes(images),
    ]
    if all(check.passed for check in checks):  # folds of unsound data would only hide the cause
        fold_counts, checks_of_folds = _folds(images, request)
        checks, tables = checks + checks_of_folds, tables + fold_counts
    stored = stored_check(dataset)
    return Inspection(request, dataset, read_description(dataset.folder), present, tables, [*checks, stored], stored)


def show(inspection: Inspection) -> None:
    """Print the tables that have rows, and the result of every check."""
    dataset = inspection.dataset
    console.info(f"{dataset.folder}: {len(dataset.manifest)} images, fingerprint {dataset.fingerprint[:12]}")
    if dataset.synthetic:
        console.info(SYNTHETIC)
    for title, header, rows in inspection.tables:
        if rows:
            console.table(title, header, rows)
    for note in (*inspection.description.notes, *inspection.description.incomplete_tables):
        console.info(note)
    results = [(check.name, "passed" if check.passed else "FAILED") for check in inspection.checks]
    console.table("Checks", ("check", "result"), results)


def _folds(images: pd.DataFrame, request: AuditConfig) -> tuple[list[CountTable], list[Check]]:
    """Counts and checks of the folds that a training with these labels, folds and seed would use."""
    name = "folds can be made"
    try:
        check_label_set(images, request.labels, request.headline)
        labels = label_set(request.labels, request.headline)
        folds = make_folds(images, labels, request.folds, request.seed)
    except UserError as error:
        return [], [Check(name, (str(error),), remedy="")]
    title = f"Folds of --labels {request.labels} --seed {request.seed}: positives per label"
    table = CountTable(title, ("", "images", groups_in_words(images), *labels), fold_table(images, folds, labels))
    return [table], [Check(name), *fold_checks(images, folds, request.folds, labelled_pool(images, labels))]

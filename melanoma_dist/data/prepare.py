"""Prepares one data set from the files of its collections: ``data prepare``.

Reads the tables, merges the collections, decodes every image once and writes it into shards, finds copies, builds
groups, and writes the manifest. ``dataset.json`` comes last: a killed preparation leaves a folder without it, which
nothing accepts as a data set, and the same command resumes after the last image that is on the disk.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from melanoma_dist import console
from melanoma_dist.data import groups, manifest, summary
from melanoma_dist.data.duplicates import as_joins, near_duplicates
from melanoma_dist.data.journal import open_journal
from melanoma_dist.data.labels import further_labels
from melanoma_dist.data.manifest import Dataset, load_dataset, read_description, read_side_table
from melanoma_dist.data.merge import Conflicts, known_values, merge_collections, merge_files, merge_masks
from melanoma_dist.data.output import output_folder, remove_unfinished
from melanoma_dist.data.photo import PIXELS, PhotoJob
from melanoma_dist.data.raw_folder import RawFolder
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.data.sources.registry import accepted_gaps, read_collections, warnings_about
from melanoma_dist.data.sources.source import Collection, Source
from melanoma_dist.data.store import read_results, store_images
from melanoma_dist.errors import DataError
from melanoma_dist.storage.images import open_image
from melanoma_dist.storage.journal import Journal


@dataclass(frozen=True)
class Request:
    """The inputs and choices of a data set. Two equal requests on the same files give the same bytes."""

    raw: Path
    """Folder of the collections' folders, such as 2017, 2018 and 2019."""
    collections: tuple[str, ...]
    """Names of the sources to merge, such as "2017"."""
    sources: tuple[Source, ...] = ()
    """Sources to merge beside these: described collections."""
    size: int = 512
    """Largest shorter side of an image, in pixels."""
    allow_missing: bool = False
    """Leave out labelled images without a file."""
    allow_incomplete_tables: bool = False
    """Accept tables that do not say of every image what they should."""
    conflicts: Conflicts = "refuse"
    holdout: float = 0.0
    """Share of the training pool's groups to keep out, 0 to 0.5."""
    seed: int = 0
    """Chooses these groups."""
    synthetic: bool = False
    """Demo data: marked as synthetic and prepared without messages."""


@dataclass(frozen=True)
class Inputs:
    """The content of the tables and folders of a request."""

    collections: list[Collection]
    table: pd.DataFrame
    """The result of `merge_collections`."""
    jobs: list[PhotoJob]
    """The images to decode, in order of image id."""

    unused_masks: tuple[str, ...] = ()
    """Ids of masks whose image is not among ``jobs``."""

    @property
    def mask_notes(self) -> list[str]:
        """A warning about masks without an image, if there are any."""
        few = ", ".join(self.unused_masks[:3]) + (", ..." if len(self.unused_masks) > 3 else "")
        return [f"{len(self.unused_masks)} masks have no image: {few}."] if self.unused_masks else []

    @property
    def missing(self) -> pd.DataFrame:
        """The selected images without a file."""
        return self.table[self.table["selected"] & ~self.table["image_id"].isin([job.image_id for job in self.jobs])]


def prepare(request: Request, out: Path) -> Dataset:
    """Prepare a data set into the folder ``out``.

    Leaves a finished ``out`` of the same inputs as it is, and resumes an unfinished one.
    Raises DataError if inputs are missing, wrong or contradictory, or if ``out`` cannot be written or contains other
    files.
    """
    inputs = _read(request)
    digest = _digest(request, inputs)
    if (out / manifest.DESCRIPTION).is_file():
        return _open_finished(out, digest)
    _refuse_missing(inputs, request)
    with output_folder(out), open_journal(out) as journal:
        if journal.resume(f"{digest} {PIXELS}"):
            console.info(f"resuming {out}: {journal.finished} of {len(inputs.jobs)} images are finished.")
        else:
            remove_unfinished(out)
        store_images(request.raw, inputs.jobs, out, journal, quiet=request.synthetic)
        _write_tables(request, inputs, out, journal, digest)
        (out / manifest.JOURNAL).unlink()
    dataset = load_dataset(out)
    if not request.synthetic:
        summary.show_dataset(dataset, inputs.collections, inputs.mask_notes)
    return dataset


def plan(request: Request, out: Path) -> pd.DataFrame:
    """Write the part of a data set that needs no pixels to ``out/plan.parquet``. Images may still be missing.

    Columns: image_id, group (without copies, which only pixels show), years, listed, split, lesion_id, the labels, age,
    sex, site, patient_id if any is known, and on_disk (the image has a file). Raises DataError as `prepare` does.
    """
    inputs = _read(request)
    if (out / manifest.DESCRIPTION).is_file():
        raise DataError(f"{out}: holds a prepared data set. Choose another folder for the plan with --out.")
    table = _grouped(request, inputs, _table_joins(inputs.collections))
    table["on_disk"] = table["image_id"].isin([job.image_id for job in inputs.jobs])
    table = table[table["selected"]].drop(columns="selected").reset_index(drop=True)
    with output_folder(out):
        manifest.write_table(out / manifest.PLAN, table)
    summary.show_plan(table, inputs.collections, out / manifest.PLAN)
    return table


def _read(request: Request) -> Inputs:
    if request.size < 1:
        raise DataError(f"--size {request.size}: the shorter side must be at least 1 pixel. The default is 512.")
    collections = read_collections(request.raw, request.collections, request.allow_incomplete_tables, request.sources)
    table = merge_collections(collections, request.conflicts)
    files, masks = merge_files(collections), merge_masks(collections)
    jobs = [
        PhotoJob(name, files[name], masks.get(name), request.size)
        for name in table.loc[table["selected"], "image_id"]
        if name in files
    ]
    if not request.synthetic:
        summary.show_inputs(request.raw, collections, [path for job in jobs for path in job.files])
    unused = tuple(sorted(masks.keys() - {job.image_id for job in jobs}))
    return Inputs(collections, table, jobs, unused)


def _digest(request: Request, inputs: Inputs) -> str:
    """The sha256 of a preparation's inputs: choices, content of the tables, and each file's name, length and time."""
    choices = request.size, request.conflicts, request.holdout, request.seed
    digest = hashlib.sha256(f"{manifest.FORMAT} {choices}\n".encode())
    # The column's first name stays in the digest: folders of earlier versions are recognised by it.
    digest.update(inputs.table.rename(columns={"selected": "wanted"}).to_csv(index=False).encode())
    for column in _joining(inputs.collections):
        digest.update(known_values(inputs.collections, column).to_csv(index=False).encode())
    for each in inputs.collections:
        digest.update(repr(each.duplicates).encode() if each.duplicates else b"")
    for job in inputs.jobs:
        for path in (*job.files, *([job.mask] if job.mask else [])):
            status = path.stat()
            name = path.relative_to(request.raw).as_posix()
            digest.update(f"{name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _open_finished(out: Path, digest: str) -> Dataset:
    """The finished data set in ``out``. Raises DataError if it was prepared from other inputs."""
    dataset = load_dataset(out)
    for name in (manifest.JOINS, manifest.MISSING, manifest.QUARANTINE):
        read_side_table(dataset, name)
    description = read_description(out)
    if description.request != digest:
        raise DataError(
            f"{out}: holds a data set prepared from other files or with other choices "
            f"(years {' '.join(description.years)}, size {dataset.size}; a rewritten file counts as "
            "another one). Runs may depend on it: choose another folder with --out, or delete this one."
        )
    console.info(
        f"{out} is finished: {len(dataset.manifest)} images, fingerprint {dataset.fingerprint[:12]}. Nothing to do. "
        f"(`data audit --data {out}` verifies every byte.)"
    )
    return dataset


def _refuse_missing(inputs: Inputs, request: Request) -> None:
    missing, labelled = inputs.missing, int(inputs.table["selected"].sum())
    if missing.empty or (inputs.jobs and request.allow_missing):
        return
    by_year = missing.groupby("years")["image_id"]
    counts = "; ".join(f"{years}: {len(ids)} ({', '.join(ids.head(3))}, ...)" for years, ids in by_year)
    leave_out = ", or leave them out with --allow-missing" if inputs.jobs else ""
    raise DataError(
        f"{len(missing)} of {labelled} labelled images have no file below {request.raw}: {counts}. "
        f"Images found there: {RawFolder(request.raw).describe_images()}. "
        f"Put them anywhere below that folder (`data download` has those of the challenges){leave_out}."
    )


def _write_tables(request: Request, inputs: Inputs, out: Path, journal: Journal, digest: str) -> None:
    """Write the tables, and last the description that makes them a data set."""
    photos, quarantine = read_results(journal)
    if photos.empty:
        first = " ".join(quarantine.iloc[0])
        raise DataError(f"none of the {journal.finished} images can be decoded; the first one: {first}.")
    joins = _joins(request, inputs, photos, out)
    table = _grouped(request, inputs, joins[joins["joined"]])
    images = _manifest(table, photos)
    missing = table.loc[inputs.missing.index, ["image_id", "years", "listed", "split", "group"]]
    for name, content in (
        (manifest.MANIFEST, images),
        (manifest.QUARANTINE, quarantine),
        (manifest.MISSING, missing),
        (manifest.JOINS, joins),
    ):
        manifest.write_table(out / name, content)
    description = {
        "format": manifest.FORMAT,
        "synthetic": request.synthetic,
        "fingerprint": manifest.fingerprint(images, request.size),
        "size": request.size,
        "years": sorted({each.name for each in inputs.collections if each.selected}),
        "conflicts": request.conflicts,
        "holdout": {"share": request.holdout, "seed": request.seed},
        "counts": {
            "images": len(images),
            "groups": images["group"].nunique(),
            "missing": len(missing),
            "lesion_unknown": int(images["lesion_id"].isna().sum()),
        },
        "quarantined": len(quarantine),
        "notes": [] if request.synthetic else [*warnings_about(inputs.collections), *inputs.mask_notes],
        "incomplete_tables": accepted_gaps(inputs.collections, images),
        "terms": {each.name: each.terms for each in inputs.collections if each.terms and each.selected},
        "request": digest,
        "tables": manifest.hash_tables(out),
    }
    manifest.write_description(out, description)


def _joins(request: Request, inputs: Inputs, photos: pd.DataFrame, out: Path) -> pd.DataFrame:
    """All joins, and the rejected look-alikes."""
    same = pd.concat(
        [_table_joins(inputs.collections), groups.join_same(photos, "source_sha256", groups.BYTES)]
    ).assign(joined=True)
    different = photos.drop_duplicates("source_sha256")
    stored = ShardReader(Dataset(out, different, request.synthetic, "", request.size))
    near = near_duplicates(different["perceptual_hash"], lambda row: open_image(stored.jpeg(row).tobytes()))
    return pd.concat([same, as_joins(near, different["image_id"])], ignore_index=True)


def _joining(collections: list[Collection]) -> dict[str, str]:
    """The columns of the tables that join images, with the reason of the joins. Patients join where any is known."""
    patients = any(each.records["patient_id"].notna().any() for each in collections)
    return {"lesion_id": groups.LESION, **({"patient_id": groups.PATIENT} if patients else {})}


def _table_joins(collections: list[Collection]) -> pd.DataFrame:
    """The joins that the tables give."""
    reasons = _joining(collections).items()
    same = [groups.join_same(known_values(collections, key), key, reason) for key, reason in reasons]
    listed = [groups.join_pairs(each.duplicates, each.name) for each in collections if each.duplicates]
    return pd.concat([*same, *listed])


def _grouped(request: Request, inputs: Inputs, joins: pd.DataFrame) -> pd.DataFrame:
    """The table with the group of each image, and the split that follows from the groups."""
    table = inputs.table.copy()
    table["group"] = groups.name_by_lesion(groups.group_images(table["image_id"], joins), table["lesion_id"])
    table["split"] = groups.exclude_neighbours(table)
    if request.holdout:
        table["split"] = groups.hold_out_share(table, request.holdout, request.seed)
    return table


def _manifest(table: pd.DataFrame, photos: pd.DataFrame) -> pd.DataFrame:
    """The table's row of each stored image, with its sizes and place."""
    images = table.merge(photos, on="image_id", how="inner", validate="one_to_one")
    sizes = dict.fromkeys(("width", "height", "source_width", "source_height"), "int32")
    offsets = dict.fromkeys(("offset", "length", "crc32", "mask_offset", "mask_length", "mask_crc32"), "int64")
    optional = [name for name in manifest.OPTIONAL if name in images]
    return images.astype(sizes | offsets)[[*manifest.COLUMNS, *optional, *further_labels(images)]]

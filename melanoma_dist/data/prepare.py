"""From the challenges' files to one prepared data set: ``data prepare``.

Read the tables, merge the years, decode every photograph once and write it into shards, find the copies among them,
group what belongs together, and write the manifest. ``dataset.json`` comes last: whatever kills this before leaves a
folder nobody takes for a data set, and the same command goes on from the last image that is safely on the disk.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from PIL import Image

from melanoma_dist import console
from melanoma_dist.data import groups, journal, manifest, summary
from melanoma_dist.data.duplicates import as_joins, near_duplicates
from melanoma_dist.data.isic import Year, read_years
from melanoma_dist.data.journal import Journal
from melanoma_dist.data.manifest import Dataset, load_dataset, read_beside, read_description
from melanoma_dist.data.merge import Conflicts, lesions, merge_files, merge_masks, merge_years
from melanoma_dist.data.output import clear, writing
from melanoma_dist.data.photo import PhotoJob
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.data.storing import outcome, store_images
from melanoma_dist.errors import DataError
from melanoma_dist.storage.images import open_image


@dataclass(frozen=True)
class Request:
    """What a data set is to be made of. Two equal requests on the same files give the same bytes."""

    raw: Path
    """Folder with the folders 2017, 2018 and 2019."""
    years: tuple[int, ...]
    size: int = 512
    """Shorter side in pixels that no image exceeds."""
    allow_missing: bool = False
    """Leave out labelled images without a file."""
    conflicts: Conflicts = "refuse"
    holdout: float = 0.0
    """Share of the training pool's groups to keep out, 0 to 0.5."""
    seed: int = 0
    """Of the choice of these groups."""
    synthetic: bool = False
    """Demo data: marked as such, and prepared without a word."""


@dataclass(frozen=True)
class Sources:
    """What the tables and folders of a request hold."""

    years: list[Year]
    table: pd.DataFrame
    """`merge_years`."""
    jobs: list[PhotoJob]
    """What there is to decode, in order of image id."""

    @property
    def missing(self) -> pd.DataFrame:
        """The wanted images without a file."""
        return self.table[self.table["wanted"] & ~self.table["image_id"].isin([job.image_id for job in self.jobs])]


def prepare(request: Request, out: Path) -> Dataset:
    """Prepare a data set into the folder ``out``.

    A finished ``out`` of the same inputs is left as it is; an unfinished one is gone on with.
    Raises DataError for inputs that are missing, wrong or contradictory, and for an ``out`` that cannot be written or
    holds something else.
    """
    sources = _read(request)
    digest = _digest(request, sources)
    if (out / manifest.DESCRIPTION).is_file():
        return _finished(out, digest)
    _refuse_missing(sources, request.allow_missing)
    with writing(out), journal.opened(out) as finished:
        if finished.resume(digest):
            console.info(f"going on with {out}: {finished.finished} of {len(sources.jobs)} images are done.")
        else:
            clear(out)
        store_images(request.raw, sources.jobs, out, finished, quiet=request.synthetic)
        _conclude(request, sources, out, finished, digest)
        (out / manifest.JOURNAL).unlink()
    dataset = load_dataset(out)
    if not request.synthetic:
        summary.show_dataset(dataset, sources.years)
    return dataset


def plan(request: Request, out: Path) -> pd.DataFrame:
    """Everything about a data set that needs no pixels, written to ``out/plan.parquet``; images need not be there yet.

    Columns: image_id, group (without copies, which only pixels tell), years, listed, split, lesion_id, the labels, age,
    sex, site, and whether its file is on_disk. Raises DataError as `prepare` does.
    """
    sources = _read(request)
    if (out / manifest.DESCRIPTION).is_file():
        raise DataError(f"{out}: holds a prepared data set. Choose another folder for the plan with --out.")
    table = _grouped(request, sources, groups.join_same(lesions(sources.years), "lesion_id", groups.LESION))
    table["on_disk"] = table["image_id"].isin([job.image_id for job in sources.jobs])
    table = table[table["wanted"]].drop(columns="wanted").reset_index(drop=True)
    with writing(out):
        manifest.write_table(out / manifest.PLAN, table)
    summary.show_plan(table, sources.years, out / manifest.PLAN)
    return table


def _read(request: Request) -> Sources:
    if request.size < 1:
        raise DataError(f"--size {request.size}: the shorter side must be at least 1 pixel. The default is 512.")
    years = read_years(request.raw, request.years)
    table = merge_years(years, request.conflicts)
    files, masks = merge_files(years), merge_masks(years)
    jobs = [
        PhotoJob(name, files[name], masks.get(name), request.size)
        for name in table.loc[table["wanted"], "image_id"]
        if name in files
    ]
    return Sources(years, table, jobs)


def _digest(request: Request, sources: Sources) -> str:
    """What was asked for, as a sha256: the choices, all that the tables say, every file with its length and time."""
    choices = request.size, request.conflicts, request.holdout, request.seed
    digest = hashlib.sha256(f"{manifest.FORMAT} {choices}\n".encode())
    digest.update(sources.table.to_csv(index=False).encode())
    digest.update(lesions(sources.years).to_csv(index=False).encode())
    for job in sources.jobs:
        for path in (*job.files, *([job.mask] if job.mask else [])):
            found = path.stat()
            name = path.relative_to(request.raw).as_posix()
            digest.update(f"{name} {found.st_size} {found.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _finished(out: Path, digest: str) -> Dataset:
    """The data set that is already there, if it is the one asked for."""
    dataset = load_dataset(out)
    for name in (manifest.JOINS, manifest.MISSING, manifest.QUARANTINE):
        read_beside(dataset, name)
    description = read_description(out)
    if description.get("request") != digest:
        raise DataError(
            f"{out}: holds a data set prepared from other files or with other choices "
            f"(years {description['years']}, size {dataset.size}; a file that was written again counts as another). "
            "Runs may depend on it: choose another folder with --out, or delete this one."
        )
    console.info(
        f"{out} is finished: {len(dataset.manifest)} images, fingerprint {dataset.fingerprint[:12]}. Nothing to do. "
        f"(`data audit --data {out}` reads every byte of it.)"
    )
    return dataset


def _refuse_missing(sources: Sources, allow_missing: bool) -> None:
    missing, wanted = sources.missing, int(sources.table["wanted"].sum())
    if not sources.jobs:
        raise DataError(
            f"nothing to prepare: {len(missing)} images are labelled and the file of none is on the disk. "
            "Get the images with `data download`, or unpack their archives beside the tables."
        )
    if len(missing) and not allow_missing:
        by_year = missing.groupby("years")["image_id"]
        counts = "; ".join(f"{years}: {len(ids)} ({', '.join(ids.head(3))}, ...)" for years, ids in by_year)
        raise DataError(
            f"{len(missing)} of {wanted} labelled images have no file on the disk: {counts}. "
            "Get them with `data download`, or leave them out with --allow-missing."
        )


def _conclude(request: Request, sources: Sources, out: Path, finished: Journal, digest: str) -> None:
    """Write the tables, and last of all the description that vouches for them."""
    photos, quarantine = outcome(finished)
    if photos.empty:
        first = " ".join(quarantine.iloc[0])
        raise DataError(f"none of the {finished.finished} images can be decoded; the first: {first}.")
    joins = _joins(request, sources, photos, out)
    table = _grouped(request, sources, joins[joins["joined"]])
    images = _manifest(table, photos)
    missing = table.loc[sources.missing.index, ["image_id", "years", "listed", "split", "group"]]
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
        "years": sorted(set(request.years)),
        "conflicts": request.conflicts,
        "holdout": {"share": request.holdout, "seed": request.seed},
        "counts": {"images": len(images), "groups": images["group"].nunique(), "missing": len(missing)},
        "quarantined": len(quarantine),
        "notes": [] if request.synthetic else summary.notes(sources.years),
        "request": digest,
        "tables": manifest.hash_tables(out),
    }
    manifest.write_description(out, description)


def _joins(request: Request, sources: Sources, photos: pd.DataFrame, out: Path) -> pd.DataFrame:
    """Every reason to keep two images together, and the look-alikes that are none."""
    same = pd.concat(
        [
            groups.join_same(lesions(sources.years), "lesion_id", groups.LESION),
            groups.join_same(photos, "source_sha256", groups.BYTES),
        ]
    ).assign(joined=True)
    different = photos.drop_duplicates("source_sha256")
    stored = ShardReader(Dataset(out, different, request.synthetic, "", request.size))

    def pixels(row: int) -> Image.Image:
        return open_image(stored.jpeg(row).tobytes())

    near = near_duplicates(different["perceptual_hash"], pixels)
    return pd.concat([same, as_joins(near, different["image_id"])], ignore_index=True)


def _grouped(request: Request, sources: Sources, joins: pd.DataFrame) -> pd.DataFrame:
    """The table with the group of each image and the split that follows from it."""
    table = sources.table.copy()
    table["group"] = groups.name_by_lesion(groups.group_images(table["image_id"], joins), table["lesion_id"])
    table["split"] = groups.exclude_neighbours(table)
    if request.holdout:
        table["split"] = groups.hold_out_share(table, request.holdout, request.seed)
    return table


def _manifest(table: pd.DataFrame, photos: pd.DataFrame) -> pd.DataFrame:
    """What the tables say of each stored image, with its sizes and place."""
    images = table.merge(photos, on="image_id", how="inner", validate="one_to_one")
    sizes = dict.fromkeys(("width", "height", "source_width", "source_height"), "int32")
    offsets = dict.fromkeys(("offset", "length", "crc32", "mask_offset", "mask_length", "mask_crc32"), "int64")
    return images.astype(sizes | offsets)[list(manifest.COLUMNS)]

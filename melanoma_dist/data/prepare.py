"""From the challenges' files to one prepared data set: ``melanoma-dist data prepare``.

Read the tables, merge the years, decode every photograph once, write it into shards, group what belongs together, and
write the manifest. ``dataset.json`` comes last: whatever kills this before leaves a folder nobody takes for a data set.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd

from melanoma_dist import log
from melanoma_dist.data import manifest as manifests
from melanoma_dist.data.isic import Year, read_years
from melanoma_dist.data.labels import label_counts
from melanoma_dist.data.manifest import Dataset, load_dataset
from melanoma_dist.data.merge import exclude_neighbours, join_groups, merge_files, merge_masks, merge_years
from melanoma_dist.data.photo import Photo, PhotoJob, prepare_photo
from melanoma_dist.data.shards import ShardWriter
from melanoma_dist.errors import DataError

_JOBS_PER_WORKER = 500
"""Fewer images than this are prepared sooner than another worker process starts."""
_OURS = ("shard-*.tar", f"{manifests.MANIFEST}*", f"{manifests.QUARANTINE}*", f"{manifests.DESCRIPTION}*")


def prepare(
    raw: Path,
    out: Path,
    years: tuple[int, ...],
    size: int = 512,
    allow_missing: bool = False,
    synthetic: bool = False,
) -> Dataset:
    """Prepare the ``years`` under ``raw`` into the folder ``out``; no image's shorter side exceeds ``size`` pixels.

    A finished ``out`` of the same inputs is left as it is; an unfinished one is started again. ``allow_missing`` leaves
    out labelled images without a file; ``synthetic`` marks demo data, and prepares it without a word.
    Raises DataError for inputs that are missing, wrong or contradictory, and for an ``out`` that cannot be written or
    holds something else.
    """
    if size < 1:
        raise DataError(f"--size {size}: the shorter side must be at least 1 pixel. The default is 512.")
    found = read_years(raw, years)
    table = merge_years(found)
    jobs = _jobs(table, found, size)
    request = _request(raw, table, jobs, size)
    if (out / manifests.DESCRIPTION).is_file():
        return _finished(out, request)
    missing = _missing(table, jobs, allow_missing)
    with _writing(out):
        _clear(out)
        photos, places, quarantine = _write_shards(raw, out, jobs, quiet=synthetic)
        manifest = _assemble(table, photos, places)
        manifests.write_manifest(out, manifest)
        quarantine.to_parquet(out / manifests.QUARANTINE, index=False)
        description = {
            "format": manifests.FORMAT,
            "synthetic": synthetic,
            "fingerprint": manifests.fingerprint(manifest, size),
            "size": size,
            "years": sorted(set(years)),
            "counts": {"images": len(manifest), "groups": manifest["group"].nunique(), "missing": len(missing)},
            "quarantined": len(quarantine),
            "request": request,
        }
        manifests.write_description(out, description)
    if not synthetic:
        _summarise(out, found, table, manifest, missing, quarantine)
    return load_dataset(out)


def _jobs(table: pd.DataFrame, found: list[Year], size: int) -> list[PhotoJob]:
    """What there is to decode, in order of image id; labelled images without a file give no job."""
    files, masks = merge_files(found), merge_masks(found)
    return [PhotoJob(name, files[name], masks.get(name), size) for name in table["image_id"] if name in files]


def _request(raw: Path, table: pd.DataFrame, jobs: list[PhotoJob], size: int) -> str:
    """What was asked for, as a sha256: the size, everything the tables say, and every file with its length."""
    digest = hashlib.sha256(f"{manifests.FORMAT} {size}\n".encode())
    digest.update(table.to_csv(index=False).encode())
    for job in jobs:
        for path in (*job.files, *([job.mask] if job.mask else [])):
            digest.update(f"{path.relative_to(raw).as_posix()} {path.stat().st_size}\n".encode())
    return digest.hexdigest()


def _finished(out: Path, request: str) -> Dataset:
    """The data set that is already there, if it is the one asked for."""
    dataset = load_dataset(out)
    description = json.loads((out / manifests.DESCRIPTION).read_text())
    if description.get("request") != request:
        raise DataError(
            f"{out}: holds a data set prepared from other files or for another size "
            f"(years {description.get('years')}, size {dataset.size}). Runs may depend on it: "
            "choose another folder with --out, or delete this one."
        )
    log.say(
        f"{out} is finished: {len(dataset.manifest)} images, fingerprint {dataset.fingerprint[:12]}. Nothing to do."
    )
    return dataset


def _missing(table: pd.DataFrame, jobs: list[PhotoJob], allow_missing: bool) -> pd.DataFrame:
    """The labelled images without a file on the disk; DataError unless they may be left out."""
    missing = table[~table["image_id"].isin([job.image_id for job in jobs])]
    if not jobs:
        raise DataError(
            f"nothing to prepare: {len(missing)} images are labelled and the file of none is on the disk. "
            "Get the image archives from the ISIC challenge site and unpack them beside the tables."
        )
    if len(missing) and not allow_missing:
        by_year = missing.groupby("years")["image_id"]
        counts = "; ".join(f"{years}: {len(ids)} ({', '.join(ids.head(3))}, ...)" for years, ids in by_year)
        raise DataError(
            f"{len(missing)} of {len(table)} labelled images have no file on the disk: {counts}. "
            "Get them from the ISIC challenge site, or leave them out with --allow-missing."
        )
    return missing


@contextmanager
def _writing(out: Path) -> Iterator[None]:
    """Turn what the disk refuses into a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{out}: cannot write the data set ({error.strerror or error}). It is unfinished. "
            "Make room or choose another folder with --out, then run the same command again."
        ) from error


def _clear(out: Path) -> None:
    """Make ``out`` an empty folder, removing what an unfinished preparation left and nothing else."""
    out.mkdir(parents=True, exist_ok=True)
    ours = {path for pattern in _OURS for path in out.glob(pattern)}
    foreign = sorted(path.name for path in set(out.iterdir()) - ours)
    if foreign:
        raise DataError(
            f"{out}: holds other files ({', '.join(foreign[:3])}{', ...' if len(foreign) > 3 else ''}); "
            "a data set needs a folder of its own. Choose another one with --out."
        )
    for path in ours:
        path.unlink()


def _write_shards(
    raw: Path, out: Path, jobs: list[PhotoJob], quiet: bool
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Decode and store every image; returns, row by row, what was stored, where, and (apart) what could not be read."""
    stored: list[dict[str, Any]] = []
    places = []
    failed = []
    photos: Iterable[Photo] = _decode(jobs)
    with ShardWriter(out) as writer:
        for photo in photos if quiet else log.progress(photos, len(jobs), "preparing"):
            for path, reason in photo.failures:
                failed.append((photo.image_id, path.relative_to(raw).as_posix(), reason))
            if photo.jpeg is None or photo.source is None:
                continue
            places.append(writer.add(photo.image_id, photo.jpeg, photo.mask))
            stored.append(_facts(raw, photo, photo.source))
    quarantine = pd.DataFrame(failed, columns=["image_id", "source", "reason"], dtype="str")
    if not stored:
        raise DataError(f"none of the {len(jobs)} images can be decoded; the first: {' '.join(failed[0])}.")
    return pd.DataFrame(stored), pd.DataFrame(places), quarantine


def _facts(raw: Path, photo: Photo, source: Path) -> dict[str, Any]:
    return {
        "image_id": photo.image_id,
        "width": photo.width,
        "height": photo.height,
        "source": source.relative_to(raw).as_posix(),
        "source_sha256": photo.source_sha256,
        "source_width": photo.source_width,
        "source_height": photo.source_height,
    }


def _decode(jobs: list[PhotoJob]) -> Iterator[Photo]:
    """The photographs in the order of their jobs, prepared on all cores, few of them in memory at a time."""
    workers = min(len(os.sched_getaffinity(0)), len(jobs) // _JOBS_PER_WORKER)
    if workers < 2:
        yield from map(prepare_photo, jobs)
        return
    # Spawned, not forked: the calling process may hold threads and libraries that do not survive a fork.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"))
    pending: deque[Future[Photo]] = deque()
    try:
        for job in jobs:
            pending.append(pool.submit(prepare_photo, job))
            if len(pending) >= 8 * workers:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    except BrokenProcessPool as error:
        raise DataError(
            f"a process that decodes images was killed ({error}), most often for want of memory. "
            "Run the same command again on a machine with more."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _assemble(table: pd.DataFrame, photos: pd.DataFrame, places: pd.DataFrame) -> pd.DataFrame:
    """The manifest: what the tables say of each stored image, with its group, split, sizes and place."""
    stored = pd.concat([photos, places], axis=1)
    manifest = table.merge(stored, on="image_id", how="inner", validate="one_to_one")
    manifest["group"] = join_groups(manifest, "lesion_id", "source_sha256")
    manifest["split"] = exclude_neighbours(manifest)
    sizes = dict.fromkeys(("width", "height", "source_width", "source_height"), "int32")
    offsets = dict.fromkeys(("offset", "length", "mask_offset", "mask_length"), "int64")
    return manifest.astype(sizes | offsets)[list(manifests.COLUMNS)]


def _summarise(
    out: Path,
    found: list[Year],
    table: pd.DataFrame,
    manifest: pd.DataFrame,
    missing: pd.DataFrame,
    quarantine: pd.DataFrame,
) -> None:
    for year in found:
        for note in year.notes:
            log.say(f"{year.year}: {note}; left out.")
    kept = set(manifest["image_id"])
    gone = set(missing["image_id"])
    rows = []
    for name, part in [*((str(year.year), year.records) for year in found), ("together", table)]:
        ids = set(part["image_id"])
        images = manifest[manifest["image_id"].isin(ids)]
        lost = len(ids - kept - gone)
        rows.append((name, len(ids), len(ids & gone), lost, len(images), images["group"].nunique()))
    log.show_table("Images", ("year", "labelled", "missing", "quarantined", "prepared", "groups"), rows)
    counts = label_counts(manifest)
    log.show_table("Labels", ("label", "yes", "no", "unknown"), [(label, *row) for label, row in counts.iterrows()])
    splits = manifest.groupby("split")["group"].agg(["size", "nunique"])
    log.show_table("Splits", ("split", "images", "groups"), [(split, *row) for split, row in splits.iterrows()])
    for _, row in quarantine.head(5).iterrows():
        log.say(f"quarantined {row['source']}: {row['reason']}")
    if len(quarantine):
        log.say(f"{len(quarantine)} files could not be read: {out / manifests.QUARANTINE}")

"""The manifest, the one table that defines a data set, and the data set itself.

A prepared folder contains ``manifest.parquet`` (one row per image, sorted by id), ``shard-*.tar`` (the pixels),
``quarantine.parquet`` (files that cannot be read or show nothing), ``missing.parquet`` (labelled images without a
file), ``joins.parquet`` (joined pairs with the reason, and rejected look-alikes) and ``dataset.json``, which is written
last: a folder without it is unfinished.

    image_id       str      the collection's id (ISIC: without ``_downsampled``); unique, sorted
    group          str      images of one group (lesion, patient, copies) are never on both sides of a split
    years          str      the prepared collections that contain the image: "2017+2019"
    listed         str      the official splits that list the image: "2017-test+2019-train"
    split          str      "train" (the pool for folds), a holdout ("2017-test", "holdout"), or "excluded: <why>"
    lesion_id      str?     from the collection's tables
    patient_id     str?     from the collection's tables; the column exists only if a collection knows patients
    MEL ... AKIEC  float32  1, 0, or NaN for unknown: `labels.LABEL_COLUMNS`
    ECZEMA ...     float32  the same for further labels that a collection of the user names: columns in capitals
    width, height  int32    pixels as prepared; source_width, source_height: as delivered
    source         str      its file, relative to the raw folder; source_sha256 of the file's bytes
    perceptual_hash str     difference hash of the prepared image, 64 hexadecimal digits: copies differ in few bits
    shard          str      file name of the tar; offset, length (int64): position of the JPEG's bytes
    crc32          int64    of the JPEG's bytes; every read is checked
    mask_offset    int64    position of the mask's PNG bytes in the same shard, mask_length, mask_crc32; -1 for no mask
    age            float32  years; sex, site: str?
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from melanoma_dist.config.places import NO_DATA
from melanoma_dist.data.labels import LABEL_COLUMNS, further_labels
from melanoma_dist.data.schema import (
    AGAIN,
    FLOAT_OR_BLANK,
    JOINS_RULES,
    MANIFEST_RULES,
    MISSING_RULES,
    OPTIONAL_RULES,
    QUARANTINE_RULES,
    SHARD,
    check_columns,
)
from melanoma_dist.data.sources.registry import SOURCES
from melanoma_dist.errors import DataError
from melanoma_dist.storage import atomic
from melanoma_dist.storage.parquet import MAX_FILE_BYTES, read_parquet
from melanoma_dist.storage.untrusted import parse_json, read_bytes

MANIFEST = "manifest.parquet"
QUARANTINE = "quarantine.parquet"
MISSING = "missing.parquet"
JOINS = "joins.parquet"
PLAN = "plan.parquet"
DESCRIPTION = "dataset.json"
JOURNAL = "journal.jsonl"
FILES = (MANIFEST, QUARANTINE, MISSING, JOINS, PLAN, JOURNAL, DESCRIPTION)
FORMAT = 2

SYNTHETIC = "SYNTHETIC DATA: these numbers say nothing about melanoma."
"""The warning beside every number that is computed from synthetic images."""
REMEDY = NO_DATA

_TEXT = ("image_id", "group", "years", "listed", "split", "lesion_id", "source_sha256", "sex", "site")
_NUMBERS = {
    **dict.fromkeys(("width", "height", "source_width", "source_height"), "<i4"),
    **dict.fromkeys((*LABEL_COLUMNS, "age"), "<f4"),
    **dict.fromkeys(("crc32", "mask_crc32"), "<i8"),
}
_STORAGE = ("source", "perceptual_hash", "shard", "offset", "length", "mask_offset", "mask_length")
COLUMNS = (*_TEXT, *_NUMBERS, *_STORAGE)
OPTIONAL = tuple(OPTIONAL_RULES)

_SIDE_TABLES = {JOINS: JOINS_RULES, MISSING: MISSING_RULES, QUARANTINE: QUARANTINE_RULES}
_TEXTS: tuple[str, Callable[[Any], bool]] = (
    "a list of texts",
    lambda value: isinstance(value, list) and all(isinstance(text, str) for text in value),
)
_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "synthetic": ("true or false", lambda value: isinstance(value, bool)),
    "fingerprint": ("text", lambda value: isinstance(value, str)),
    "size": ("a whole number from 1 on", lambda value: type(value) is int and value >= 1),
    # Names of collections; earlier versions wrote years as numbers.
    "years": ("a list of years", lambda value: isinstance(value, list) and all(type(y) in (int, str) for y in value)),
    **dict.fromkeys(("notes", "incomplete_tables"), _TEXTS),
    "terms": ("texts by collection", lambda value: isinstance(value, dict) and _TEXTS[1](list(value.values()))),
    "tables": ("the sha256 of each table", lambda value: isinstance(value, dict) and set(value) == set(_SIDE_TABLES)),
}
"""The fields of ``dataset.json`` that the program reads, each with its rule in words and as a test."""


@dataclass(frozen=True)
class Dataset:
    """A prepared data set, checked and ready to be read."""

    folder: Path
    manifest: pd.DataFrame
    synthetic: bool
    """True for the built-in demo data: no number computed from it says anything about melanoma."""
    fingerprint: str
    """sha256 of the manifest's content; see `fingerprint`."""
    size: int
    """Largest shorter side of an image, in pixels."""
    incomplete_tables: tuple[str, ...] = ()
    """Tables that were accepted although they say too little about their images, and what is unknown for it."""
    terms: Mapping[str, str] = field(default_factory=dict)
    """Licence and citation of collections that are no challenge, where they are known."""


@dataclass(frozen=True)
class Description:
    """The content of ``dataset.json``."""

    fingerprint: str
    synthetic: bool
    size: int
    years: list[str]
    notes: list[str]
    """Warnings of the preparation: images left out, facts unknown."""
    incomplete_tables: list[str]
    """See `Dataset`; none for a data set of an earlier version."""
    terms: dict[str, str]
    """The same."""
    tables: dict[str, str]
    """The sha256 of each table beside the manifest, by file name."""
    request: str
    """The digest of the preparation's inputs."""
    content: dict[str, object]
    """The whole file, for people to read."""


def fingerprint(manifest: pd.DataFrame, size: int) -> str:
    """The sha256 (hex) of the data: ids, groups, splits, labels, metadata, sizes, hashes of source files and pixels.

    It does not depend on the position of the bytes (shards, offsets, paths) or on the table's file format.
    """
    table = manifest.sort_values("image_id")
    digest = hashlib.sha256(f"melanoma-dist data {FORMAT}, size {size}, {len(table)} images".encode())
    for name in (*_TEXT, *(name for name in OPTIONAL if name in table)):
        texts = [None if pd.isna(value) else str(value) for value in table[name]]
        digest.update(json.dumps([name, texts]).encode())
    for name, dtype in (_NUMBERS | dict.fromkeys(further_labels(table), "<f4")).items():
        values = table[name].to_numpy(dtype=dtype)
        # NaN has many bit patterns: hash one of them for all.
        digest.update(name.encode() + np.where(np.isnan(values), np.nan, values).astype(dtype).tobytes())
    return digest.hexdigest()


def load_dataset(folder: Path) -> Dataset:
    """Read and verify a prepared folder. Raises DataError, with a remedy, if it is incomplete, corrupt or edited."""
    description = read_description(folder)
    manifest = _read_manifest(folder)
    actual = fingerprint(manifest, description.size)
    if actual != description.fingerprint:
        raise DataError(
            f"{folder / MANIFEST}: its content has fingerprint {actual[:12]}, but {DESCRIPTION} was written for "
            f"{description.fingerprint[:12]}: one of them is corrupt or edited. {AGAIN}"
        )
    _check_shards(folder, manifest)
    incomplete, terms = tuple(description.incomplete_tables), description.terms
    return Dataset(folder, manifest, description.synthetic, actual, description.size, incomplete, terms)


def read_side_table(dataset: Dataset, name: str) -> pd.DataFrame:
    """Read a table beside the manifest: ``QUARANTINE``, ``MISSING`` or ``JOINS``.

    Raises DataError if it is missing or not the prepared one: with joins removed, every check of groups would pass.
    """
    path = dataset.folder / name
    try:
        content = read_bytes(path, MAX_FILE_BYTES)
        table = read_parquet(content)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Copy it again, or: {AGAIN}") from error
    if hashlib.sha256(content).hexdigest() != read_description(dataset.folder).tables[name]:
        raise DataError(
            f"{path}: is not the table that {DESCRIPTION} was written for: corrupt or edited. "
            f"Copy both again, or: {AGAIN}"
        )
    check_columns(path, table, _SIDE_TABLES[name])
    return table


def hash_tables(folder: Path) -> dict[str, str]:
    """The sha256 of each table beside the manifest, by file name."""
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in _SIDE_TABLES}


def write_table(path: Path, table: pd.DataFrame) -> None:
    """Write a table atomically."""
    atomic.write_file(path, lambda aside: table.to_parquet(aside, index=False))


def write_description(folder: Path, content: dict[str, object]) -> None:
    """Write ``dataset.json`` atomically. With it the folder is a finished data set."""
    atomic.write_text(folder / DESCRIPTION, json.dumps(content, indent=1) + "\n")


def read_description(folder: Path) -> Description:
    """Read ``dataset.json``. Raises DataError, with the likely cause, if it is missing or invalid."""
    path = folder / DESCRIPTION
    if not path.is_file():
        raise DataError(f"{folder}: {_why_no_dataset(folder)}")
    try:
        content = read_bytes(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error!r}). {AGAIN}") from error
    return parse_description(content, str(path))


def parse_description(content: bytes, path: str) -> Description:
    """Parse a ``dataset.json`` that was read from ``path``. Raises DataError if it is invalid."""
    try:
        tree = {"incomplete_tables": [], "terms": {}, **parse_json(content)}
        version = tree["format"]
        missing = set(_FIELDS) - set(tree)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path}: cannot be read ({error!r}). {AGAIN}") from error
    if version != FORMAT:
        raise DataError(f"{path}: has format {version}, this program reads format {FORMAT}. {AGAIN}")
    if missing:
        cause = "an earlier version of this program wrote it, or it was edited"
        raise DataError(f"{path}: the fields {', '.join(sorted(missing))} are missing: {cause}. {AGAIN}")
    for name, (must, holds) in _FIELDS.items():
        if not holds(tree[name]):
            raise DataError(f"{path}: {name} {tree[name]!r}: must be {must}. {AGAIN}")
    years = [str(year) for year in tree["years"]]
    fields = {name: tree[name] for name in _FIELDS if name != "years"}
    return Description(**fields, years=years, request=str(tree.get("request", "")), content=tree)


def _why_no_dataset(folder: Path) -> str:
    """Why a folder without ``dataset.json`` is not a data set, and the remedy."""
    if not folder.exists():
        return f"no such folder. {REMEDY}"
    if not folder.is_dir():
        return f"is a file; a prepared data set is a folder. {REMEDY}"
    names = {entry.name for entry in folder.iterdir()}
    if not names:
        return f"the folder is empty. {REMEDY}"
    if PLAN in names:
        return f"holds a plan ({PLAN}) and no images: run `data prepare` again without --manifest-only."
    if JOURNAL in names:
        return (
            f"an unfinished data set: {DESCRIPTION} is written last and is not there. "
            "Run the same `data prepare` again."
        )
    if MANIFEST in names or any(re.fullmatch(SHARD, name) for name in names):
        return f"an unfinished data set, or an incomplete copy: there is no {DESCRIPTION}. Copy it again, or: {AGAIN}"
    if any(name in SOURCES or name.upper().startswith("ISIC") for name in names):
        return f"holds the challenges' raw files, which must be prepared first. {REMEDY}"
    return f"not a prepared data set: there is no {DESCRIPTION}. {REMEDY}"


def _read_manifest(folder: Path) -> pd.DataFrame:
    path = folder / MANIFEST
    if not path.is_file():
        raise DataError(f"{path}: is missing although {DESCRIPTION} exists. Copy it again, or: {AGAIN}")
    try:
        manifest = read_parquet(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Copy it again, or: {AGAIN}") from error
    optional = OPTIONAL_RULES | dict.fromkeys(further_labels(manifest), FLOAT_OR_BLANK)
    check_columns(path, manifest, MANIFEST_RULES | {name: rule for name, rule in optional.items() if name in manifest})
    if not manifest["image_id"].is_monotonic_increasing or not manifest["image_id"].is_unique:
        raise DataError(f"{path}: image ids must be unique and sorted. {AGAIN}")
    no_mask = (manifest[["mask_offset", "mask_length", "mask_crc32"]] < 0).sum(axis=1)
    if not no_mask.isin([0, 3]).all():
        raise DataError(f"{path}: some masks have only some of offset, length and CRC-32. {AGAIN}")
    return manifest


def _check_shards(folder: Path, manifest: pd.DataFrame) -> None:
    ends = pd.DataFrame(
        {
            "image": manifest["offset"] + manifest["length"],
            "mask": manifest["mask_offset"] + manifest["mask_length"],
        }
    ).max(axis=1)
    for name, needed in ends.groupby(manifest["shard"]).max().items():
        path = folder / str(name)
        if not path.is_file():
            raise DataError(f"{path}: the manifest names this shard and it is missing. Copy it again, or: {AGAIN}")
        if path.stat().st_size < needed:
            raise DataError(
                f"{path}: has {path.stat().st_size} bytes, but its images reach to byte {needed}: "
                f"the file was cut short. Copy it again, or: {AGAIN}"
            )

"""Readers of the challenges' files, of downloads and of prepared data sets."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd

from fuzzing.files import METADATA, RUN, TABLE
from fuzzing.parsers import Parser
from melanoma_dist.config.saved import saved_config
from melanoma_dist.data import journal, store
from melanoma_dist.data.audit.checks import manifest_checks, stored_check
from melanoma_dist.data.download.archive import unpack
from melanoma_dist.data.download.catalogue import OfficialFile, official_files
from melanoma_dist.data.download.licences import require_acceptance
from melanoma_dist.data.download.local_files import inspect, require_rows
from melanoma_dist.data.download.partial_file import PartialFile
from melanoma_dist.data.labels import LABEL_SETS
from melanoma_dist.data.manifest import JOINS, MISSING, QUARANTINE, fingerprint, load_dataset, read_side_table
from melanoma_dist.data.merge import merge_collections
from melanoma_dist.data.output import output_folder
from melanoma_dist.data.photo import PhotoJob, prepare_photo
from melanoma_dist.data.shards import Place, verify
from melanoma_dist.data.sources.registry import read_collections
from melanoma_dist.inference.images import select_holdout
from melanoma_dist.run import open_data, plan_folds


def _tables(place: Path) -> None:
    merge_collections(read_collections(place / "raw", ("2019",)), "refuse")


def _file(name: str) -> OfficialFile:
    return next(file for file in official_files((2019,)) if file.name == name)


def _unpack(place: Path) -> None:
    target = place / "files" / "unpacked" / "Data"
    try:
        with unpack(place / "files" / "archive.zip", target):
            pass
    finally:
        shutil.rmtree(target, ignore_errors=True)


def _partial(place: Path) -> None:
    part = PartialFile(place / "files" / "Data.zip")
    if part.is_from("https://example.org/2019/Data.zip") and part.version is not None:
        part.version.condition, part.version.matches({"ETag": "x"}), part.is_complete, part.size


def _record_download(place: Path) -> None:
    table = place / "raw" / "2019" / TABLE
    entry = {"url": "x", "bytes": table.stat().st_size, "sha256": hashlib.sha256(table.read_bytes()).hexdigest()}
    content = {"files": {TABLE: {**entry, "when": "x", "licence": "x", "unpacked": None}}}
    (table.parent / "download.json").write_text(json.dumps(content))


def _manifest(place: Path) -> None:
    """Load a manifest under its right fingerprint: an attacker can compute it too."""
    data = place / "data"
    try:
        table = pd.read_parquet(data / "manifest.parquet")
        _rewrite_description(data, fingerprint=fingerprint(table, 48))
    except Exception:  # noqa: S110  # nosec B110  # a table without a fingerprint stays as it is
        pass
    config = saved_config(place / RUN / "config.yaml")
    plan_folds(config, open_data(replace(config, data=replace(config.data, data=str(data)))))
    select_holdout(load_dataset(data), "holdout", LABEL_SETS["isic2017"])


def _beside(place: Path) -> None:
    data = place / "data"
    digests = {name: hashlib.sha256((data / name).read_bytes()).hexdigest() for name in (JOINS, MISSING, QUARANTINE)}
    _rewrite_description(data, tables=digests)
    dataset = load_dataset(data)
    joins, *_ = (read_side_table(dataset, name) for name in (JOINS, MISSING, QUARANTINE))
    manifest_checks(dataset.manifest, joins)


def _rewrite_description(data: Path, **changed: object) -> None:
    path = data / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def _shards(place: Path) -> None:
    stored_check(load_dataset(place / "data"))
    verify(load_dataset(place / "data"))


def _write_journal(place: Path) -> None:
    """The journal of a killed preparation of the sample's images."""
    (place / "out").mkdir()
    photos = [
        prepare_photo(PhotoJob(path.stem, (path,), None, 48))
        for path in sorted((place / "raw/2019/ISIC_2019_Training_Input").iterdir())[:6]
    ]
    where = Place("shard-00000.tar", 512, 9, 1, -1, -1, -1)
    records = [store._entry(place, each, where)._asdict() for each in photos]
    lines = [{"request": "x"}, *records]
    (place / "out" / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _preparation(place: Path) -> None:
    with output_folder(place / "out"), journal.open_journal(place / "out") as entries:
        if entries.resume("x"):
            store.read_results(entries)


def _photo(place: Path) -> None:
    files = place / "files"
    prepare_photo(PhotoJob("ISIC_0000001", (files / "photo.jpg", files / "photo.png"), files / "mask.png", 32))
    prepare_photo(PhotoJob("ISIC_0000002", (files / "deep.png",), None, 512))


PARSERS: dict[str, Parser] = {
    "tables": Parser(_tables, ("raw",), (f"raw/2019/{TABLE}", f"raw/2019/{METADATA}")),
    "downloaded-table": Parser(
        lambda place: require_rows(replace(_file(TABLE), count=60), place / "raw/2019" / TABLE),
        ("raw",), (f"raw/2019/{TABLE}",),
    ),
    "archive": Parser(_unpack, ("files",), ("files/archive.zip",)),
    "partial-download": Parser(_partial, ("files",), ("files/Data.zip.part.json",)),
    "licences": Parser(
        lambda place: require_acceptance(place / "files", [_file(TABLE)], accept=False),
        ("files",), ("files/licenses.json",),
    ),
    "download-record": Parser(
        lambda place: inspect(place / "raw", _file(TABLE)), ("raw",), ("raw/2019/download.json",), _record_download
    ),
    "photographs": Parser(
        _photo, ("files",), ("files/photo.jpg", "files/photo.png", "files/deep.png", "files/mask.png")
    ),
    "preparation": Parser(_preparation, ("raw",), ("out/journal.jsonl",), _write_journal),
    "description": Parser(lambda place: load_dataset(place / "data"), ("data",), ("data/dataset.json",)),
    "manifest": Parser(_manifest, ("data", "runs"), ("data/manifest.parquet",)),
    "joins": Parser(_beside, ("data",), ("data/joins.parquet", "data/missing.parquet", "data/quarantine.parquet")),
    "shards": Parser(_shards, ("data",), ("data/shard-00000.tar",)),
}  # fmt: skip

"""Every reader of what others may have written, as the program's commands use it, and the files that it reads."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from fuzzing.samples import BACKBONE, METADATA, TABLE
from melanoma_dist.config_file import as_flags, read_yaml, saved_config
from melanoma_dist.data import journal, storing
from melanoma_dist.data.audit.checks import manifest_checks, stored_check
from melanoma_dist.data.demo import open_dataset
from melanoma_dist.data.download.archive import unpacked
from melanoma_dist.data.download.catalogue import Item, catalogue
from melanoma_dist.data.download.counting import require_rows
from melanoma_dist.data.download.holdings import inspect
from melanoma_dist.data.download.licences import require_acceptance
from melanoma_dist.data.download.part import Part
from melanoma_dist.data.folds import read_folds
from melanoma_dist.data.isic import read_years
from melanoma_dist.data.labels import LABEL_SETS
from melanoma_dist.data.manifest import JOINS, MISSING, QUARANTINE, fingerprint, load_dataset, read_beside
from melanoma_dist.data.merge import merge_years
from melanoma_dist.data.output import writing
from melanoma_dist.data.photo import PhotoJob, prepare_photo
from melanoma_dist.data.shards import Place as Stored
from melanoma_dist.data.shards import verify
from melanoma_dist.evaluate.comparison.cost import cost, differing
from melanoma_dist.evaluate.comparison.runs import out_of_fold_contenders
from melanoma_dist.evaluate.comparison.unseen import holdout_contenders
from melanoma_dist.evaluate.report.card import write_card
from melanoma_dist.evaluate.report.page import write_report
from melanoma_dist.evaluate.trained import load_model
from melanoma_dist.evaluate.unseen.earlier import look_back
from melanoma_dist.evaluate.unseen.images import choose_holdout
from melanoma_dist.evaluate.unseen.predict import hashes
from melanoma_dist.evaluate.unseen.subject import open_subject
from melanoma_dist.models.backbones import build_trunk
from melanoma_dist.run import open_data, plan_folds
from melanoma_dist.sweep.conductor import Conductor
from melanoma_dist.sweep.config import SweepConfig
from melanoma_dist.sweep.journal import Journal, retell
from melanoma_dist.sweep.ledger import make_ledger, milestones
from melanoma_dist.sweep.race import Place, Race
from melanoma_dist.sweep.search import Stopper

_RUN = "runs/first"
_LABELS = LABEL_SETS["isic2017"]


@dataclass(frozen=True)
class Parser:
    """A reader: ``read`` is given the folder that holds copies of ``folders``, in which one of ``files`` is damaged."""

    read: Callable[[Path], object]
    folders: tuple[str, ...]
    files: tuple[str, ...]
    begin: Callable[[Path], object] = lambda place: None
    """Makes what no sample is."""


def _config(place: Path) -> None:
    list(as_flags(read_yaml(place / _RUN / "config.yaml")))
    saved_config(place / _RUN / "config.yaml").identity()


def _tables(place: Path) -> None:
    merge_years(read_years(place / "raw", (2019,)), "refuse")


def _item(name: str) -> Item:
    return next(item for item in catalogue((2019,)) if item.name == name)


def _unpack(place: Path) -> None:
    target = place / "files" / "unpacked" / "Data"
    try:
        with unpacked(place / "files" / "archive.zip", target):
            pass
    finally:
        shutil.rmtree(target, ignore_errors=True)


def _partial(place: Path) -> None:
    part = Part(place / "files" / "Data.zip")
    if part.belongs_to("https://example.org/2019/Data.zip") and part.version is not None:
        part.version.condition, part.version.agrees({"ETag": "x"}), part.complete, part.size


def _record_download(place: Path) -> None:
    table = place / "raw" / "2019" / TABLE
    entry = {"url": "x", "bytes": table.stat().st_size, "sha256": hashlib.sha256(table.read_bytes()).hexdigest()}
    content = {"files": {TABLE: {**entry, "when": "x", "licence": "x", "unpacked": None}}}
    (table.parent / "download.json").write_text(json.dumps(content))


def _manifest(place: Path) -> None:
    """With a fingerprint that is right whatever the manifest holds: an attacker can compute it too."""
    data = place / "data"
    try:
        table = pd.read_parquet(data / "manifest.parquet")
        _vouch(data, fingerprint=fingerprint(table, 48))
    except Exception:  # noqa: S110  # nosec B110  # a table of which there is no fingerprint stays as it is
        pass
    config = saved_config(place / _RUN / "config.yaml")
    plan_folds(config, open_data(replace(config, data=replace(config.data, data=str(data)))))
    choose_holdout(load_dataset(data), "holdout", _LABELS)


def _beside(place: Path) -> None:
    data = place / "data"
    digests = {name: hashlib.sha256((data / name).read_bytes()).hexdigest() for name in (JOINS, MISSING, QUARANTINE)}
    _vouch(data, tables=digests)
    dataset = load_dataset(data)
    joins, *_ = (read_beside(dataset, name) for name in (JOINS, MISSING, QUARANTINE))
    manifest_checks(dataset.manifest, joins)


def _vouch(data: Path, **changed: object) -> None:
    path = data / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def _shards(place: Path) -> None:
    stored_check(load_dataset(place / "data"))
    verify(load_dataset(place / "data"))


def _begin_preparation(place: Path) -> None:
    """The journal of a killed preparation of the sample's images."""
    (place / "out").mkdir()
    photos = [
        prepare_photo(PhotoJob(path.stem, (path,), None, 48))
        for path in sorted((place / "raw/2019/ISIC_2019_Training_Input").iterdir())[:6]
    ]
    records = [storing._record(place, each, Stored("shard-00000.tar", 512, 9, 1, -1, -1, -1)) for each in photos]
    lines = [{"request": "x"}, *records]
    (place / "out" / "journal.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def _preparation(place: Path) -> None:
    with writing(place / "out"), journal.opened(place / "out") as finished:
        if finished.resume("x"):
            storing.outcome(finished)


def _photo(place: Path) -> None:
    files = place / "files"
    prepare_photo(PhotoJob("ISIC_0000001", (files / "photo.jpg", files / "photo.png"), files / "mask.png", 32))
    prepare_photo(PhotoJob("ISIC_0000002", (files / "deep.png",), None, 512))


def _weights(place: Path) -> None:
    for suffix in ("safetensors", "pt"):
        build_trunk(BACKBONE, str(place / "files" / f"weights.{suffix}"), 32)


def _judged_run(place: Path) -> None:
    """With the hashes of its files right, as whoever edits them can make them."""
    run = place / _RUN
    _rehash(run, "summary.json", ("predictions.parquet", "frozen.json"))
    subject = open_subject(run)
    hashes(subject.units)
    for unit in subject.units:
        load_model(unit)
    subject.frozen.thresholds(subject.labels, 0.5)
    subject.frozen.calibrate(read_predictions_of(run), subject.labels)
    subject.trained(open_dataset(str(place / "data")))


def read_predictions_of(run: Path) -> pd.DataFrame:
    """A table that is not damaged here."""
    names = {label: np.linspace(0, 1, 5, dtype=np.float32) for label in _LABELS}
    return pd.DataFrame({"image_id": list("abcde"), **names})


def _rehash(folder: Path, teller: str, names: tuple[str, ...]) -> None:
    path = folder / teller
    try:
        told = json.loads(path.read_bytes())
        told["files"] = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
        path.write_text(json.dumps(told))
    except (ValueError, TypeError, RecursionError):
        pass  # what is no object has no hashes


def _compared(place: Path) -> None:
    for name in ("first", "second"):
        _rehash(place / "runs" / name, "summary.json", ("predictions.parquet", "frozen.json"))
    runs = [place / "runs" / "first", place / "runs" / "second"]
    contenders = out_of_fold_contenders(runs)
    [cost(each) for each in contenders], differing(contenders)


def _compared_unseen(place: Path) -> None:
    runs = [place / "runs" / "first", place / "runs" / "second"]
    _rehash(runs[0] / "evaluations/001-holdout", "evaluation.json", ("predictions.parquet", "folds.parquet"))
    differing(holdout_contenders(runs, "holdout"))


def _looks(place: Path) -> None:
    chosen = choose_holdout(open_dataset(str(place / "data")), "holdout", _LABELS)
    look_back(place / "runs" / "second", chosen.images)


def _report(place: Path) -> None:
    write_report(place / _RUN)
    write_card(place / _RUN)


class _Values:
    """A searcher that knows no values."""

    def suggest(self) -> dict[str, object] | None:
        return {"optimizer.lr": 0.1}

    def tell(self, configuration: int, auc: float | None) -> None:
        pass


def _conductor() -> Conductor:
    return Conductor(_Values(), Stopper(SweepConfig()), Race(2, "forgiving"), 3)


def _begin_sweep(place: Path) -> None:
    """The journal of a sweep of three configurations, of which two are dropped."""
    kept = Journal(place / "sweep.jsonl")
    conductor = _conductor()
    kept.write("session", trials=3, device="GPU", per_unit=1, ranks=1, share=1.0, side_by_side=1)
    while (unit := conductor.next()) is not None:
        at = {"configuration": unit.configuration, "fold": unit.fold}
        kept.write("start", **at)
        for epoch in (1, 2):
            auc = 0.9 - 0.1 * unit.configuration
            kept.write("epoch", **at, epoch=epoch, auc=auc, best_auc=auc, seconds=1.0)
            conductor.epoch(unit, epoch, auc)
        kept.write("end", **at, state="finished", seconds=3.0)
        for drop in conductor.finish(Place(unit.configuration, unit.fold)):
            kept.write("drop", configuration=drop.configuration, why=drop.why)


def _sweep(place: Path) -> None:
    path = place / "sweep.jsonl"
    records = Journal(path).records
    retell(records, _conductor(), path)
    make_ledger(records, 2), milestones(records, 2)


_JUDGED = ("config.yaml", "record.json", "summary.json", "frozen.json", "folds.parquet", "model/fold-0.safetensors")
_COMPARED = ("record.json", "summary.json", "folds.parquet", "predictions.parquet", "model/fold-0.safetensors")
_LOOKED = ("evaluation.json", "predictions.parquet")
_TOLD = ("summary.json", "record.json", "config.yaml", "fold-0/metrics.jsonl", "gallery/gallery.json",
         "evaluations/001-holdout/evaluation.json")  # fmt: skip


def _in(folder: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}" for name in names)


PARSERS: dict[str, Parser] = {
    "configuration": Parser(_config, ("runs",), (f"{_RUN}/config.yaml",)),
    "tables": Parser(_tables, ("raw",), (f"raw/2019/{TABLE}", f"raw/2019/{METADATA}")),
    "downloaded-table": Parser(
        lambda place: require_rows(replace(_item(TABLE), count=60), place / "raw/2019" / TABLE),
        ("raw",), (f"raw/2019/{TABLE}",),
    ),
    "archive": Parser(_unpack, ("files",), ("files/archive.zip",)),
    "partial-download": Parser(_partial, ("files",), ("files/Data.zip.part.json",)),
    "licences": Parser(
        lambda place: require_acceptance(place / "files", [_item(TABLE)], accept=False),
        ("files",), ("files/licenses.json",),
    ),
    "download-record": Parser(
        lambda place: inspect(place / "raw", _item(TABLE)), ("raw",), ("raw/2019/download.json",), _record_download
    ),
    "photographs": Parser(_photo, ("files",), _in("files", ("photo.jpg", "photo.png", "deep.png", "mask.png"))),
    "preparation": Parser(_preparation, ("raw",), ("out/journal.jsonl",), _begin_preparation),
    "description": Parser(lambda place: load_dataset(place / "data"), ("data",), ("data/dataset.json",)),
    "manifest": Parser(_manifest, ("data", "runs"), ("data/manifest.parquet",)),
    "joins": Parser(_beside, ("data",), _in("data", ("joins.parquet", "missing.parquet", "quarantine.parquet"))),
    "shards": Parser(_shards, ("data",), ("data/shard-00000.tar",)),
    "folds": Parser(lambda place: read_folds(place / _RUN / "folds.parquet"), ("runs",), (f"{_RUN}/folds.parquet",)),
    "weights": Parser(_weights, ("files",), _in("files", ("weights.safetensors", "weights.pt"))),
    "judged-run": Parser(_judged_run, ("runs", "data"), _in(_RUN, _JUDGED)),
    "compared-run": Parser(_compared, ("runs",), _in(_RUN, _COMPARED)),
    "compared-look": Parser(_compared_unseen, ("runs",), _in(f"{_RUN}/evaluations/001-holdout", _LOOKED)),
    "earlier-looks": Parser(
        _looks, ("runs", "data"), _in(f"{_RUN}/evaluations/001-holdout", ("evaluation.json", "images.parquet"))
    ),
    "report": Parser(_report, ("runs",), _in(_RUN, _TOLD)),
    "sweep-journal": Parser(_sweep, (), ("sweep.jsonl",), _begin_sweep),
}  # fmt: skip
"""By name. Space files are no data but code, and are not among them."""

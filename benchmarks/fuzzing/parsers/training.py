"""Readers that a resumed run uses for its folder and its mirror."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import torch

from fuzzing.files import RUN
from fuzzing.parsers import Parser
from fuzzing.parsers.runs import inside, rehash
from melanoma_dist.artifacts import run_record
from melanoma_dist.artifacts.run_folder import RunFolder, open_run
from melanoma_dist.artifacts.run_record import read_run_record
from melanoma_dist.config.fault_tolerance import FaultToleranceConfig
from melanoma_dist.config.run import RunConfig
from melanoma_dist.data.folds import read_folds
from melanoma_dist.errors import ConfigError
from melanoma_dist.mirror import run_mirror
from melanoma_dist.run import show_again
from melanoma_dist.storage.backoff import Backoff
from melanoma_dist.tasks.classification import ClassificationRuns
from melanoma_dist.train import tensorboard_history
from melanoma_dist.train.checkpoint import Checkpoints, Cursor

_CURSOR = Cursor(1)
_STATE = f"checkpoints/{_CURSOR.name}/state.pt"
_EVENTS = "events.out.tfevents.1.host"


def _prepare_run(place: Path) -> None:
    run_record._commit = lambda: None  # it asks git
    (place / RUN / "summary.json").unlink()
    for name in ("record.json", "folds.parquet"):
        shutil.copyfile(place / RUN / name, place / name)


def _resumed_run(place: Path) -> None:
    folder = RunFolder(place / RUN, read_run_record(place / "record.json").identity)
    config = RunConfig(fault_tolerance=FaultToleranceConfig(accept_changes=True))
    open_run(folder, config, read_folds(place / "folds.parquet"))


def _checkpoints(place: Path) -> Checkpoints:
    return Checkpoints(place / "checkpoints", lambda text: None)


def _prepare_checkpoint(place: Path) -> None:
    weights = {f"layer.{number}": torch.arange(12.0).reshape(3, 4) for number in range(4)}
    state = {"model": weights, "rng": torch.get_rng_state(), "history": [{"auc": 0.5}, {}], "epoch": 1, "best": None}
    _checkpoints(place).save(_CURSOR, state, keep_best=0)


def _checkpoint(place: Path) -> None:
    """Fix the hashes: an attacker who writes a state can write its manifest."""
    rehash(place / "checkpoints" / _CURSOR.name, "manifest.json", ("state.pt", "best.txt"))
    checkpoints = _checkpoints(place)
    if name := checkpoints.newest():
        checkpoints.load(name)


def _prepare_curves(place: Path) -> None:
    (place / "kept").mkdir()
    shutil.copyfile(next((place / RUN / "fold-0").glob("events.*")), place / _EVENTS)


def _curves(place: Path) -> None:
    shutil.rmtree(place / "kept")
    (place / "kept").mkdir()
    shutil.copyfile(place / _EVENTS, place / "kept" / _EVENTS)
    tensorboard_history.rewrite(place / "kept", 10**9)


def _part(place: Path) -> run_mirror.MirrorPart:
    return run_mirror.MirrorPart((place / "mirror").as_uri(), place / "restored")


def _prepare_mirror(place: Path) -> None:
    run_mirror._BACKOFF = Backoff(first_s=0.0, longest_s=0.0)
    shutil.copytree(place / RUN, place / "restored")
    _part(place).copy(lambda text: None).update()
    shutil.rmtree(place / "restored")
    next((place / "mirror" / "manifests").iterdir()).rename(place / "manifest.json")
    shutil.copyfile(place / RUN / "record.json", place / "record.json")


def _mirror(place: Path) -> None:
    """Fix the manifest's name, and the hash of the record in it."""
    manifest, record = (place / "manifest.json").read_bytes(), (place / "record.json").read_bytes()
    original = (place / RUN / "record.json").read_bytes()
    manifest = manifest.replace(_digest(original).encode(), _digest(record).encode())
    manifests, objects = place / "mirror" / "manifests", place / "mirror" / "objects"
    shutil.rmtree(manifests)
    manifests.mkdir()
    (manifests / f"00000001-{_digest(manifest)}.json").write_bytes(manifest)
    (objects / _digest(record)).write_bytes(record)
    folder = RunFolder(place / "restored", read_run_record(place / RUN / "record.json").identity)
    try:
        run_mirror.restore(folder, [_part(place)], ConfigError("busy"), lambda text: None)
    finally:
        shutil.rmtree(folder.path, ignore_errors=True)
        if record != original:
            (objects / _digest(record)).unlink()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


PARSERS: dict[str, Parser] = {
    "resumed-run": Parser(_resumed_run, ("runs",), inside(RUN, "record.json", "folds.parquet"), _prepare_run),
    "finished-run": Parser(
        lambda place: show_again(RunFolder(place / RUN, {}), ClassificationRuns()),
        ("runs",),
        inside(RUN, "summary.json"),
    ),
    "checkpoint": Parser(_checkpoint, (), (_STATE,), _prepare_checkpoint),
    "curves": Parser(_curves, ("runs",), (_EVENTS,), _prepare_curves),
    "mirror": Parser(_mirror, ("runs",), ("manifest.json", "record.json"), _prepare_mirror),
}

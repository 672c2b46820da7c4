"""A run folder with made-up content, and its mirror."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from melanoma_dist.artifacts.run_folder import RunFolder
from melanoma_dist.artifacts.run_record import Identity, RunRecord, current_environment, now, write_run_record
from melanoma_dist.config.run import RunConfig
from melanoma_dist.errors import ConfigError
from melanoma_dist.mirror import run_mirror
from melanoma_dist.mirror.run_mirror import keep_mirrored, mirror_parts, restore
from melanoma_dist.storage import atomic
from melanoma_dist.storage.backoff import Backoff

from ..samples import tiny
from .storage import Flaky, read_all_files

BUSY = ConfigError("another command")
IDENTITY: Identity = {"seed": 0, "data": "fingerprint"}
MIRROR = "flaky://bucket/runs"


class Run:
    """A run folder with made-up content, and its mirror."""

    def __init__(self, path: Path, config: RunConfig | None = None) -> None:
        self.config = config or tiny(mirror=MIRROR, folds=2, repeats=2)
        self.folder = RunFolder(path, IDENTITY)
        self.parts = mirror_parts(self.config, self.folder)
        self.messages: list[str] = []

    def write(self, path: str, text: str) -> None:
        (self.folder.path / path).parent.mkdir(parents=True, exist_ok=True)
        atomic.write_text(self.folder.path / path, text)

    def save(self, fold: str, epoch: int) -> None:
        place = self.folder.path / fold / "checkpoints" / f"epoch-{epoch:05d}-step-0000000"
        atomic.write_folder(place, lambda aside: (aside / "state.pt").write_text(f"{fold} {epoch}"))

    def start(self) -> None:
        self.folder.path.mkdir(parents=True, exist_ok=True)
        write_run_record(self.folder.record, RunRecord(IDENTITY, current_environment(), now()))
        self.write("config.yaml", "seed: 0")
        self.write("folds.parquet", "folds")
        self.write("seed-1/folds.parquet", "the same folds")
        for fold in ("fold-0", "fold-1", "seed-1/fold-0", "seed-1/fold-1"):
            self.save(fold, 1)
            self.write(f"{fold}/metrics.jsonl", f"{fold} 1")

    def finish(self) -> None:
        for place in ("", "seed-1/"):
            for fold in (0, 1):
                self.write(f"{place}model/fold-{fold}.safetensors", f"{place}weights {fold}")
                self.write(f"{place}fold-{fold}/predictions.parquet", f"{place}predictions {fold}")
        self.write("predictions.parquet", "all predictions")
        self.write("model/README.md", "the card")
        self.write("summary.json", "the metrics")

    def copy(self) -> None:
        with keep_mirrored(self.parts, self.messages.append):
            pass

    def lose_disk(self) -> dict[str, bytes]:
        before = read_all_files(self.folder.path)
        shutil.rmtree(self.folder.path)
        return before

    def restore_run(self) -> dict[str, bytes]:
        self.messages.clear()
        restore(self.folder, self.parts, BUSY, self.messages.append)
        return read_all_files(self.folder.path)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    Flaky.reset()
    monkeypatch.setattr(run_mirror, "_BACKOFF", Backoff(0.01, 0.02))
    yield Run(tmp_path / "runs" / "name")
    Flaky.reset()

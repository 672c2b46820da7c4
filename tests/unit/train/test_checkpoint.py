from __future__ import annotations

import errno
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from melanoma_dist.errors import TrainingError
from melanoma_dist.storage import atomic
from melanoma_dist.train.checkpoint import Checkpoints, Cursor


def state(epoch: int) -> dict[str, Any]:
    return {"epoch": epoch, "weights": torch.arange(3000.0) + epoch, "history": [{"loss": 0.5}], "none": None}


def named(epoch: int) -> str:
    return Cursor(epoch).name


class UnitCheckpoints:
    """The checkpoints of a unit, and their warnings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.warnings: list[str] = []
        self.checkpoints = Checkpoints(folder, self.warnings.append)

    def run(self, *epochs: int, best: int = 0) -> None:
        for epoch in epochs:
            if epoch == best:
                self.checkpoints.save_best(epoch, {"w": torch.ones(2)})
            self.checkpoints.save(Cursor(epoch), state(epoch), keep_best=best)

    def newest(self) -> dict[str, Any] | None:
        name = self.checkpoints.newest()
        return None if name is None else self.checkpoints.load(name)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def unit(tmp_path: Path) -> UnitCheckpoints:
    return UnitCheckpoints(tmp_path / "checkpoints")


@contextmanager
def files_no_larger_than(count: int) -> Iterator[None]:
    """Let a write fail in the middle of a file, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (count, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(bytes(content))


CORRUPTIONS = [truncate, flip_a_bit, Path.unlink]


def test_a_new_folder_has_no_checkpoint(unit: UnitCheckpoints) -> None:
    assert unit.newest() is None


def test_a_saved_state_is_loaded(unit: UnitCheckpoints) -> None:
    unit.run(0, 1)
    loaded = unit.newest()
    assert loaded is not None
    assert loaded["weights"].equal(state(1)["weights"])
    assert {key: loaded[key] for key in ("epoch", "history", "none")} == {
        "epoch": 1,
        "history": [{"loss": 0.5}],
        "none": None,
    }
    assert unit.checkpoints.best(0) == unit.folder / "best-0000" / "model.safetensors"


@pytest.mark.parametrize("file", ["state.pt", "manifest.json"])
@pytest.mark.parametrize("corrupt", CORRUPTIONS)
def test_a_corrupt_checkpoint_falls_back_to_the_one_before(unit: UnitCheckpoints, corrupt: Any, file: str) -> None:
    unit.run(0, 1, 2)
    corrupt(unit.folder / named(2) / file)
    loaded = unit.newest()
    assert loaded is not None
    assert loaded["epoch"] == 1
    assert len(unit.warnings) == 1
    assert named(2) in unit.warnings[0]


def test_if_all_checkpoints_are_corrupt_training_does_not_start_over(unit: UnitCheckpoints) -> None:
    unit.run(0, 1)
    for path in unit.folder.glob("epoch-*/state.pt"):
        flip_a_bit(path)
    with pytest.raises(TrainingError, match="every checkpoint is corrupt"):
        unit.newest()


@pytest.mark.parametrize("corrupt", CORRUPTIONS)
def test_a_corrupt_best_epoch_is_refused(unit: UnitCheckpoints, corrupt: Any) -> None:
    unit.run(0)
    corrupt(unit.folder / "best-0000" / "model.safetensors")
    with pytest.raises(TrainingError, match="best-0000 is corrupt or missing"):
        unit.checkpoints.best(0)


def test_a_torn_folder_is_no_checkpoint(unit: UnitCheckpoints) -> None:
    unit.run(0)
    torn = unit.folder / ".epoch-00001-step-0000000.tmp"
    torn.mkdir()
    (torn / "state.pt").write_bytes(b"half of")
    loaded = unit.newest()
    assert loaded is not None
    assert loaded["epoch"] == 0
    unit.run(1)
    assert ".epoch-00001-step-0000000.tmp" not in unit.names()
    assert unit.warnings == []


def test_two_checkpoints_and_their_best_epochs_are_retained(unit: UnitCheckpoints) -> None:
    unit.run(0, 1, 2, 3, best=0)
    assert unit.names() == ["best-0000", named(2), named(3)]
    unit.run(4, best=4)
    assert unit.names() == ["best-0000", "best-0004", named(3), named(4)]
    unit.run(5, best=5)
    assert {"best-0004", "best-0005", named(4), named(5)} <= set(unit.names())
    assert "best-0000" not in unit.names()


def test_the_same_epoch_can_be_saved_again(unit: UnitCheckpoints) -> None:
    unit.run(0, 1)
    unit.checkpoints.save(Cursor(1), {**state(1), "epoch": "again"}, keep_best=0)
    loaded = unit.newest()
    assert loaded is not None
    assert loaded["epoch"] == "again"


def test_a_refused_write_leaves_the_earlier_ones(unit: UnitCheckpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    unit.run(0)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match=r"epoch-00001-step-0000000.*No space left.*earlier ones are intact"):
        unit.run(1)
    assert unit.names() == ["best-0000", named(0)]


def test_a_disk_that_fills_while_the_state_is_written(unit: UnitCheckpoints) -> None:
    unit.run(0)
    with (
        files_no_larger_than(4096),
        pytest.raises(TrainingError, match=r"epoch-00001-step.*could not be written"),
    ):
        unit.run(1)
    assert unit.names() == ["best-0000", named(0)]


def test_a_disk_that_fills_while_the_best_is_written(unit: UnitCheckpoints) -> None:
    unit.run(0)
    with files_no_larger_than(4096), pytest.raises(TrainingError, match=r"best-0001.*could not be written"):
        unit.checkpoints.save_best(1, {"w": torch.ones(9000)})
    assert unit.names() == ["best-0000", named(0)]


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("code ran",)


def test_nothing_that_is_loaded_runs_code(unit: UnitCheckpoints, capsys: pytest.CaptureFixture[str]) -> None:
    unit.checkpoints.save(Cursor(0), {"code": Code()}, keep_best=0)
    with pytest.raises(TrainingError, match="more than tensors and plain values"):
        unit.newest()
    assert "code ran" not in capsys.readouterr().out


def test_the_last_good_one_is_never_deleted(unit: UnitCheckpoints) -> None:
    unit.run(0, 1, 2)
    flip_a_bit(unit.folder / named(2) / "state.pt")
    unit.run(3)
    assert unit.names() == ["best-0000", named(1), named(3)]
    flip_a_bit(unit.folder / named(3) / "state.pt")
    loaded = unit.newest()
    assert loaded is not None
    assert loaded["epoch"] == 1
    unit.run(2)  # the unit resumed from 1, so checkpoint 3 is later than this one
    assert unit.names() == ["best-0000", named(1), named(2)]


def test_falling_back_finds_the_best_epoch_of_that_state(unit: UnitCheckpoints) -> None:
    unit.run(0, best=0)
    unit.run(1, best=0)
    unit.run(2, best=2)
    unit.run(3, best=3)
    assert unit.names() == ["best-0002", "best-0003", named(2), named(3)]
    flip_a_bit(unit.folder / named(3) / "state.pt")
    unit.run(4, best=4)  # 2 is the fallback, and 3 is corrupt
    assert unit.names() == ["best-0002", "best-0004", named(2), named(4)]


def test_a_kill_while_one_is_replaced_leaves_the_old_one(unit: UnitCheckpoints) -> None:
    unit.run(0, 1)
    (unit.folder / named(1)).rename(unit.folder / f".{named(1)}.old")
    loaded = unit.newest()
    assert loaded is not None
    assert loaded["epoch"] == 1
    unit.run(2)
    assert unit.names() == ["best-0000", named(1), named(2)]


def test_a_clock_that_goes_backwards_changes_nothing(unit: UnitCheckpoints) -> None:
    for epoch in range(4):
        unit.run(epoch)
        os.utime(unit.folder / named(epoch), (1000 - epoch, 1000 - epoch))
    assert unit.names() == ["best-0000", named(2), named(3)]
    loaded = unit.newest()
    assert loaded is not None
    assert loaded["epoch"] == 3


def test_a_failed_deletion_does_not_fail_a_save(unit: UnitCheckpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    unit.run(0, 1)

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(atomic, "remove_folder", refuse)
    unit.run(2)
    monkeypatch.undo()
    assert unit.names() == ["best-0000", named(0), named(1), named(2)]
    unit.run(3)
    assert unit.names() == ["best-0000", named(2), named(3)]

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


class Kept:
    """Checkpoints in a folder, and what they warned of."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.warnings: list[str] = []
        self.checkpoints = Checkpoints(folder, self.warnings.append)

    def run(self, *epochs: int, best: int = 0) -> None:
        for epoch in epochs:
            if epoch == best:
                self.checkpoints.save_best(epoch, {"w": torch.ones(2)}, {"probability": torch.tensor([0.1 * epoch])})
            self.checkpoints.save(Cursor(epoch), state(epoch), keep_best=best)

    def newest(self) -> dict[str, Any] | None:
        name = self.checkpoints.newest()
        return None if name is None else self.checkpoints.load(name)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir())


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "checkpoints")


@contextmanager
def files_no_larger_than(count: int) -> Iterator[None]:
    """What a full disk does: a write fails in the middle of a file."""
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


DAMAGES = [truncate, flip_a_bit, Path.unlink]


def test_nothing_is_there_at_first(kept: Kept) -> None:
    assert kept.newest() is None


def test_what_was_saved_comes_back(kept: Kept) -> None:
    kept.run(0, 1)
    found = kept.newest()
    assert found is not None
    assert found["weights"].equal(state(1)["weights"])
    assert {key: found[key] for key in ("epoch", "history", "none")} == {
        "epoch": 1,
        "history": [{"loss": 0.5}],
        "none": None,
    }
    path, validation = kept.checkpoints.best(0)
    assert path == kept.folder / "best-0000" / "model.safetensors"
    assert validation["probability"].tolist() == [0.0]


@pytest.mark.parametrize("file", ["state.pt", "manifest.json"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_one_falls_back_to_the_one_before(kept: Kept, damage: Any, file: str) -> None:
    kept.run(0, 1, 2)
    damage(kept.folder / named(2) / file)
    found = kept.newest()
    assert found is not None
    assert found["epoch"] == 1
    assert len(kept.warnings) == 1
    assert named(2) in kept.warnings[0]


def test_when_all_are_damaged_nothing_is_made_up(kept: Kept) -> None:
    kept.run(0, 1)
    for path in kept.folder.glob("epoch-*/state.pt"):
        flip_a_bit(path)
    with pytest.raises(TrainingError, match="every checkpoint is damaged"):
        kept.newest()


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", ["model.safetensors", "validation.safetensors"])
def test_a_damaged_best_is_refused(kept: Kept, damage: Any, file: str) -> None:
    kept.run(0)
    damage(kept.folder / "best-0000" / file)
    with pytest.raises(TrainingError, match="best-0000 is damaged or missing"):
        kept.checkpoints.best(0)


def test_a_torn_folder_is_no_checkpoint(kept: Kept) -> None:
    kept.run(0)
    torn = kept.folder / ".epoch-00001-step-0000000.tmp"
    torn.mkdir()
    (torn / "state.pt").write_bytes(b"half of")
    found = kept.newest()
    assert found is not None
    assert found["epoch"] == 0
    kept.run(1)
    assert ".epoch-00001-step-0000000.tmp" not in kept.names()
    assert kept.warnings == []


def test_two_and_what_they_call_best_are_kept(kept: Kept) -> None:
    kept.run(0, 1, 2, 3, best=0)
    assert kept.names() == ["best-0000", named(2), named(3)]
    kept.run(4, best=4)
    assert kept.names() == ["best-0000", "best-0004", named(3), named(4)]
    kept.run(5, best=5)
    assert {"best-0004", "best-0005", named(4), named(5)} <= set(kept.names())
    assert "best-0000" not in kept.names()


def test_the_same_epoch_can_be_saved_again(kept: Kept) -> None:
    kept.run(0, 1)
    kept.checkpoints.save(Cursor(1), {**state(1), "epoch": "again"}, keep_best=0)
    found = kept.newest()
    assert found is not None
    assert found["epoch"] == "again"


def test_a_refused_write_leaves_the_earlier_ones(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.run(0)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(TrainingError, match=r"epoch-00001-step-0000000.*No space left.*earlier ones are intact"):
        kept.run(1)
    assert kept.names() == ["best-0000", named(0)]


def test_a_disk_that_fills_while_the_state_is_written(kept: Kept) -> None:
    kept.run(0)
    with (
        files_no_larger_than(4096),
        pytest.raises(TrainingError, match=r"epoch-00001-step.*could not be written"),
    ):
        kept.run(1)
    assert kept.names() == ["best-0000", named(0)]


def test_a_disk_that_fills_while_the_best_is_written(kept: Kept) -> None:
    kept.run(0)
    with files_no_larger_than(4096), pytest.raises(TrainingError, match=r"best-0001.*could not be written"):
        kept.checkpoints.save_best(1, {"w": torch.ones(9000)}, {"probability": torch.ones(1)})
    assert kept.names() == ["best-0000", named(0)]


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("code ran",)


def test_nothing_that_is_loaded_runs_code(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    kept.checkpoints.save(Cursor(0), {"code": Code()}, keep_best=0)
    with pytest.raises(TrainingError, match="more than tensors and plain values"):
        kept.newest()
    assert "code ran" not in capsys.readouterr().out


def test_the_last_good_one_is_never_deleted(kept: Kept) -> None:
    kept.run(0, 1, 2)
    flip_a_bit(kept.folder / named(2) / "state.pt")
    kept.run(3)
    assert kept.names() == ["best-0000", named(1), named(3)]
    flip_a_bit(kept.folder / named(3) / "state.pt")
    found = kept.newest()
    assert found is not None
    assert found["epoch"] == 1
    kept.run(2)  # it goes on from there, and 3 comes later than what is saved now
    assert kept.names() == ["best-0000", named(1), named(2)]


def test_falling_back_finds_what_that_state_calls_its_best(kept: Kept) -> None:
    kept.run(0, best=0)
    kept.run(1, best=0)
    kept.run(2, best=2)
    kept.run(3, best=3)
    assert kept.names() == ["best-0002", "best-0003", named(2), named(3)]
    flip_a_bit(kept.folder / named(3) / "state.pt")
    kept.run(4, best=4)  # 2 is the one to fall back on, and 3 is of no use
    assert kept.names() == ["best-0002", "best-0004", named(2), named(4)]


def test_a_kill_while_one_is_replaced_leaves_the_old_one(kept: Kept) -> None:
    kept.run(0, 1)
    (kept.folder / named(1)).rename(kept.folder / f".{named(1)}.old")
    found = kept.newest()
    assert found is not None
    assert found["epoch"] == 1
    kept.run(2)
    assert kept.names() == ["best-0000", named(1), named(2)]


def test_a_clock_that_goes_backwards_changes_nothing(kept: Kept) -> None:
    for epoch in range(4):
        kept.run(epoch)
        os.utime(kept.folder / named(epoch), (1000 - epoch, 1000 - epoch))
    assert kept.names() == ["best-0000", named(2), named(3)]
    found = kept.newest()
    assert found is not None
    assert found["epoch"] == 3


def test_old_ones_that_cannot_be_deleted_do_not_fail_a_save(kept: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    kept.run(0, 1)

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(atomic, "remove_folder", refuse)
    kept.run(2)
    monkeypatch.undo()
    assert kept.names() == ["best-0000", named(0), named(1), named(2)]
    kept.run(3)
    assert kept.names() == ["best-0000", named(2), named(3)]

"""A storage that refuses: training continues, a refused best epoch is saved later, and patience ends."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from melanoma_dist.errors import TrainingError
from melanoma_dist.storage import atomic
from melanoma_dist.storage.backoff import Backoff
from melanoma_dist.train.checkpoint import Checkpoints, Cursor
from melanoma_dist.train.saving import Best, Patience, Saver

PATIENCE = Patience(failures=5, longest_s=1000.0, backoff=Backoff(first_s=10.0, longest_s=40.0))
REFUSALS = [errno.EIO, errno.ENOSPC, errno.EDQUOT, errno.ESTALE, errno.EROFS]


class Storage:
    """A storage that refuses ``refusals`` times, and a clock that only the test moves."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.refusals, self.code, self.now = folder, 0, errno.EIO, 1000.0
        self.attempts = 0
        self.warnings: list[str] = []
        self.slept: list[float] = []
        self.checkpoints = Checkpoints(folder, print)
        self.saver = Saver(self.checkpoints, self.warnings.append, PATIENCE, lambda: self.now, self.sleep)
        real: Callable[..., Any] = atomic.write_folder

        def write_folder(*args: Any) -> None:
            self.refuse()
            real(*args)

        monkeypatch.setattr(atomic, "write_folder", write_folder)

    def refuse(self) -> None:
        self.attempts += 1
        if self.refusals:
            self.refusals -= 1
            raise OSError(self.code, os.strerror(self.code))

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    def save(self, epoch: int, best: int = 0, urgent: bool = False, weights: torch.Tensor | None = None) -> bool:
        """``weights`` are those of epoch ``best``, where it is a new one."""
        new = None if weights is None else Best(best, {"w": weights}, {"fold": "0"})
        return self.saver.save(Cursor(epoch), {"epoch": epoch}, best, new, urgent)

    def newest(self) -> int | None:
        name = self.checkpoints.newest()
        return None if name is None else int(self.checkpoints.load(name)["epoch"])


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    return Storage(tmp_path / "checkpoints", monkeypatch)


@pytest.mark.parametrize("code", REFUSALS)
def test_a_refused_save_is_reported_and_retried_after_a_wait(storage: Storage, code: int) -> None:
    assert storage.save(1)
    storage.refusals, storage.code = 2, code
    assert not storage.save(2)
    assert os.strerror(code) in storage.warnings[0]
    assert "earlier ones are intact" in storage.warnings[0]
    assert "Training continues" in storage.warnings[0]
    assert storage.newest() == 1
    assert not storage.saver.due()
    assert not storage.save(3)  # too early
    assert len(storage.warnings) == 1
    storage.now += 15.1
    assert storage.saver.due()
    assert not storage.save(4)
    storage.now += 30.1
    assert storage.save(5)
    assert storage.newest() == 5
    assert storage.warnings[-1] == "The storage accepts files again, after 2 refusals."
    assert not storage.saver.due()
    assert storage.attempts == 4


def test_waits_double_up_to_the_longest() -> None:
    backoff = Backoff(first_s=10.0, longest_s=40.0)
    for failures, usual in ((1, 10), (2, 20), (3, 40), (4, 40), (5000, 40)):
        waits = {backoff.wait_s(failures) for _ in range(50)}
        assert usual / 2 <= min(waits) < max(waits) <= usual * 1.5


def test_an_urgent_save_does_not_wait_for_its_time(storage: Storage) -> None:
    storage.refusals = 1
    assert not storage.save(1)
    assert not storage.save(2)
    assert storage.save(2, urgent=True)
    assert storage.newest() == 2


def test_patience_ends_after_too_many_refusals_and_names_the_last_checkpoint(storage: Storage) -> None:
    storage.save(1)
    storage.refusals = 100
    for _ in range(PATIENCE.failures - 1):
        assert not storage.save(2)
        storage.now += 61
    with pytest.raises(TrainingError) as raised:
        storage.save(2)
    message = str(raised.value)
    assert "The storage has refused 5 times in 4 minutes" in message
    assert os.strerror(errno.EIO) in message
    assert f"The last checkpoint, {Cursor(1).name}, is intact. Free space or fix the storage" in message
    assert storage.newest() == 1


def test_patience_ends_after_its_time(storage: Storage) -> None:
    storage.refusals = 100
    assert not storage.save(1)
    storage.now += PATIENCE.longest_s
    with pytest.raises(TrainingError, match=r"refused 2 times in 17 minutes.*There is no checkpoint yet"):
        storage.save(2)


def test_patience_starts_again_after_a_success(storage: Storage) -> None:
    for epoch in range(1, 20):
        storage.refusals = 1
        assert not storage.save(epoch)
        storage.now += 600
        assert storage.save(epoch)


def test_a_resumed_training_names_its_last_checkpoint(storage: Storage) -> None:
    storage.save(3)
    storage.checkpoints = Checkpoints(storage.folder, print)
    storage.saver = Saver(storage.checkpoints, print, Patience(failures=1))
    storage.checkpoints.newest()
    storage.refusals = 1
    with pytest.raises(TrainingError, match=Cursor(3).name):
        storage.save(4)


def test_a_best_that_was_refused_is_saved_before_the_next_state(storage: Storage) -> None:
    storage.refusals = 2
    assert not storage.save(2, best=1, weights=torch.ones(3))
    assert not storage.save(2, best=1)  # too early, for both
    storage.now += 61
    assert not storage.save(2, best=1)
    assert storage.checkpoints.newest() is None  # no state that names a best that is not there
    storage.now += 61
    assert storage.save(2, best=1)
    path = storage.checkpoints.best(1)
    assert torch.equal(load(path), torch.ones(3))


def test_a_newer_best_takes_the_place_of_one_that_was_refused(storage: Storage) -> None:
    storage.refusals = 1
    assert not storage.save(2, best=1, weights=torch.ones(3))
    storage.now += 61
    assert storage.save(3, best=2, weights=torch.zeros(3))
    assert sorted(path.name for path in storage.folder.iterdir()) == ["best-0002", Cursor(3).name]


def test_the_end_of_a_training_waits_for_its_storage(storage: Storage) -> None:
    storage.refusals = 3
    assert not storage.save(2, best=1, weights=torch.ones(3))
    done: list[Path] = []

    def write() -> None:
        storage.refuse()
        done.append(storage.checkpoints.best(1))

    storage.saver.retry_until_done(write)
    assert done == [storage.folder / "best-0001" / "model.safetensors"]
    assert len(storage.slept) == 3
    assert all(seconds > 0 for seconds in storage.slept)
    storage.refusals = 100
    with pytest.raises(TrainingError, match="refused 5 times"):
        storage.saver.retry_until_done(write)


def test_an_error_outside_the_storage_is_not_retried(storage: Storage) -> None:
    def wrong() -> None:
        raise TrainingError("corrupt")

    with pytest.raises(TrainingError, match=r"^corrupt$"):
        storage.saver.retry_until_done(wrong)
    assert storage.slept == []


def test_a_real_read_only_folder_is_a_refusal(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_text("a file has no folders")
    warnings: list[str] = []
    saver = Saver(Checkpoints(place / "checkpoints", print), warnings.append, PATIENCE)
    assert not saver.save(Cursor(1), {}, keep_best=0)
    assert "Not a directory" in warnings[0]


def load(path: Path) -> torch.Tensor:
    from safetensors.torch import load_file

    return load_file(path)["w"]

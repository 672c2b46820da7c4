"""The uploader: it retries, never blocks its caller, and reports what it could not upload."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from melanoma_dist.mirror.copy import FolderCopy, Log
from melanoma_dist.mirror.uploader import Uploader
from melanoma_dist.storage.backoff import Backoff

from .storage import Flaky, checkpoint, read_all_files

FAST = Backoff(first_s=0.01, longest_s=0.02)


@pytest.fixture(autouse=True)
def reset() -> Iterator[None]:
    Flaky.reset()
    yield
    Flaky.reset()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


def copy_of(root: Path) -> Callable[[Log], FolderCopy]:
    return lambda log: FolderCopy("flaky://b/run", root, lambda path: True, log)


def restore(place: Path) -> dict[str, bytes]:
    place.mkdir()
    copy = FolderCopy("flaky://b/run", place, lambda path: True, print)
    newest = copy.newest()
    if newest is not None:
        copy.restore(newest)
    return read_all_files(place)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_new_files_arrive_at_once_and_the_rest_at_the_end(folder: Path, tmp_path: Path) -> None:
    messages: list[str] = []
    uploader = Uploader("fold 0", copy_of(folder), messages.append, FAST)
    checkpoint(folder, "epoch-1", "one")
    uploader.notify()
    wait_until(lambda: any("/manifests/" in path for path in Flaky.store))
    checkpoint(folder, "epoch-2", "two")
    assert uploader.close(30)
    assert restore(tmp_path / "there") == read_all_files(folder)
    assert messages == []


@pytest.mark.parametrize("refusals", [1, 2, 7, 20])
def test_a_storage_that_refuses_is_retried(folder: Path, tmp_path: Path, refusals: int) -> None:
    messages: list[str] = []
    Flaky.refusals = refusals
    uploader = Uploader("fold 0", copy_of(folder), messages.append, FAST)
    checkpoint(folder, "epoch-1", "one")
    uploader.notify()
    assert uploader.close(30)
    assert restore(tmp_path / "there") == read_all_files(folder)
    assert messages[0].startswith(
        "fold 0: the mirror cannot be written (ConnectionError: 503 slow down), failure 1; training"
    )
    assert messages[-1] == f"fold 0: the mirror can be written again, after {refusals} failures."
    assert len(messages) < 7


def test_truncated_uploads_are_retried(folder: Path, tmp_path: Path) -> None:
    Flaky.truncations = 3
    messages: list[str] = []
    uploader = Uploader("fold 0", copy_of(folder), messages.append, FAST)
    checkpoint(folder, "epoch-1", "one")
    assert uploader.close(30)
    assert restore(tmp_path / "there") == read_all_files(folder)
    assert "IncompleteWrite" in messages[0]


def test_a_storage_that_hangs_blocks_nothing_and_is_reported(folder: Path) -> None:
    released = threading.Event()
    Flaky.on_call = staticmethod(lambda _: released.wait(60))
    messages: list[str] = []
    uploader = Uploader("fold 0", copy_of(folder), messages.append, FAST)
    checkpoint(folder, "epoch-1", "one")
    start = time.monotonic()
    for _ in range(100):
        uploader.notify()
    assert not uploader.close(0.2)
    assert time.monotonic() - start < 10
    assert messages == ["fold 0: the mirror is not up to date (it takes longer than 0.2 s). What it holds is complete."]
    released.set()
    uploader._thread.join(30)  # else it would write into the storage of the next test


def test_a_storage_that_refuses_to_the_end_is_reported_with_its_reason(folder: Path) -> None:
    Flaky.refusals = 10**9
    messages: list[str] = []
    uploader = Uploader("fold 0", copy_of(folder), messages.append, FAST)
    checkpoint(folder, "epoch-1", "one")
    assert not uploader.close(0.3)
    uploader._thread.join(30)
    assert "the mirror is not up to date (ConnectionError: 503 slow down)" in messages[-1]


def test_messages_come_from_the_callers_thread(folder: Path) -> None:
    callers: list[str] = []
    Flaky.refusals = 1
    uploader = Uploader("fold 0", copy_of(folder), lambda _: callers.append(threading.current_thread().name), FAST)
    checkpoint(folder, "epoch-1", "one")
    assert uploader.close(30)
    assert callers == [threading.current_thread().name] * 2


def test_without_changes_nothing_is_uploaded(folder: Path) -> None:
    uploader = Uploader("fold 0", copy_of(folder), print, FAST)
    assert uploader.close(30)
    assert not Flaky.store

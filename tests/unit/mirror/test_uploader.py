"""The thread that carries: it tries again, never holds anybody up, and says what it could not bring."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from melanoma_dist.mirror.copy import Copy, Tell
from melanoma_dist.mirror.uploader import Uploader
from melanoma_dist.storage.backoff import Backoff

from .storage import Flaky, checkpoint, everything

HASTY = Backoff(first_s=0.01, longest_s=0.02)


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    Flaky.clean()
    yield
    Flaky.clean()


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "here").mkdir()
    return tmp_path / "here"


def made(root: Path) -> Callable[[Tell], Copy]:
    return lambda tell: Copy("flaky://b/run", root, lambda path: True, tell)


def back(place: Path) -> dict[str, bytes]:
    place.mkdir()
    copy = Copy("flaky://b/run", place, lambda path: True, print)
    newest = copy.newest()
    if newest is not None:
        copy.restore(newest)
    return everything(place)


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_is_new_arrives_and_the_rest_at_the_end(here: Path, tmp_path: Path) -> None:
    told: list[str] = []
    courier = Uploader("fold 0", made(here), told.append, HASTY)
    checkpoint(here, "epoch-1", "one")
    courier.nudge()
    until(lambda: any("/manifests/" in path for path in Flaky.store))
    checkpoint(here, "epoch-2", "two")
    assert courier.close(30)
    assert back(tmp_path / "there") == everything(here)
    assert told == []


@pytest.mark.parametrize("refusals", [1, 2, 7, 20])
def test_a_storage_that_refuses_is_tried_again(here: Path, tmp_path: Path, refusals: int) -> None:
    told: list[str] = []
    Flaky.refusals = refusals
    courier = Uploader("fold 0", made(here), told.append, HASTY)
    checkpoint(here, "epoch-1", "one")
    courier.nudge()
    assert courier.close(30)
    assert back(tmp_path / "there") == everything(here)
    assert told[0].startswith("fold 0: the mirror cannot be written (ConnectionError: 503 slow down), failure 1; it is")
    assert told[-1] == f"fold 0: the mirror takes what is new again, after {refusals} failures."
    assert len(told) < 7


def test_uploads_that_are_cut_short_are_tried_again(here: Path, tmp_path: Path) -> None:
    Flaky.cuts = 3
    told: list[str] = []
    courier = Uploader("fold 0", made(here), told.append, HASTY)
    checkpoint(here, "epoch-1", "one")
    assert courier.close(30)
    assert back(tmp_path / "there") == everything(here)
    assert "CutShort" in told[0]


def test_a_storage_that_hangs_holds_nobody_up_and_is_told(here: Path) -> None:
    released = threading.Event()
    Flaky.after = staticmethod(lambda _: released.wait(60))
    told: list[str] = []
    courier = Uploader("fold 0", made(here), told.append, HASTY)
    checkpoint(here, "epoch-1", "one")
    start = time.monotonic()
    for _ in range(100):
        courier.nudge()
    assert not courier.close(0.2)
    assert time.monotonic() - start < 10
    assert told == ["fold 0: the mirror lacks what is newest here (it takes longer than 0.2 s). What it has is whole."]
    released.set()
    courier._thread.join(30)  # it would write into the storage of the next test


def test_a_storage_that_refuses_to_the_end_is_told_with_its_reason(here: Path) -> None:
    Flaky.refusals = 10**9
    told: list[str] = []
    courier = Uploader("fold 0", made(here), told.append, HASTY)
    checkpoint(here, "epoch-1", "one")
    assert not courier.close(0.3)
    courier._thread.join(30)
    assert "the mirror lacks what is newest here (ConnectionError: 503 slow down)" in told[-1]


def test_what_it_says_is_said_by_whoever_asks_it(here: Path) -> None:
    speakers: list[str] = []
    Flaky.refusals = 1
    courier = Uploader("fold 0", made(here), lambda _: speakers.append(threading.current_thread().name), HASTY)
    checkpoint(here, "epoch-1", "one")
    assert courier.close(30)
    assert speakers == [threading.current_thread().name] * 2


def test_nothing_new_is_nothing_to_do(here: Path) -> None:
    courier = Uploader("fold 0", made(here), print, HASTY)
    assert courier.close(30)
    assert not Flaky.store

from __future__ import annotations

import time

import pytest

from melanoma_dist.config.fault_tolerance import FaultToleranceConfig
from melanoma_dist.train.clock import CheckpointInterval, Clock, Speed


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    at = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: at[0])
    return at


@pytest.mark.parametrize(
    ("text", "interval"),
    [("500", (500, None)), ("90s", (None, 90.0)), ("10m", (None, 600.0)), ("2h", (None, 7200.0)), ("007", (7, None))],
)
def test_an_interval_is_steps_or_time(text: str, interval: tuple[int | None, float | None]) -> None:
    assert FaultToleranceConfig(checkpoint_every=text).checkpoint_interval == interval


def test_steps_are_counted_from_the_last_checkpoint() -> None:
    rhythm = CheckpointInterval(3, None)
    assert [rhythm.due() for _ in range(4)] == [False, False, True, True]
    rhythm.saved()
    assert [rhythm.due() for _ in range(3)] == [False, False, True]


def test_time_is_counted_from_the_last_checkpoint(now: list[float]) -> None:
    rhythm = CheckpointInterval(None, 60.0)
    now[0] += 59
    assert not rhythm.due()
    now[0] += 1
    assert rhythm.due()
    rhythm.saved()
    assert not rhythm.due()


def test_a_checkpoint_begins_earlier_by_the_time_that_it_takes_but_not_all_the_time(now: list[float]) -> None:
    rhythm = CheckpointInterval(None, 60.0)
    now[0] += 49
    assert not rhythm.due(ahead_s=10.0)
    now[0] += 1
    assert rhythm.due(ahead_s=10.0)
    rhythm.saved()
    now[0] += 29
    assert not rhythm.due(ahead_s=1000.0)
    now[0] += 1
    assert rhythm.due(ahead_s=1000.0)


def test_time_before_an_interruption_counts_and_the_interruption_does_not(now: list[float]) -> None:
    clock = Clock(8)
    now[0] += 2
    state = clock.state_dict()
    now[0] += 1000
    clock = Clock(8, state)
    now[0] += 2
    assert clock.seconds() == 4.0
    assert clock.speed(5) == Speed(images_per_s=10.0, wait_share=0.0)

"""Measures the speed of an epoch, and decides when the next checkpoint is due."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

_REPORT_INTERVAL_S = 1.0
Batch = TypeVar("Batch")


class Speed(NamedTuple):
    """How fast a unit trains."""

    images_per_s: float  # of all its ranks together
    wait_share: float  # of the time, spent waiting for input, 0 to 1


class Clock:
    """Measures images per second, and the share of the time spent waiting for input.

    Time before an interruption counts; time between it and the resume does not.
    """

    def __init__(self, batch_size: int, state: dict[str, float] | None = None) -> None:
        """``state``: from ``state_dict``, to continue in the middle of an epoch."""
        self._batch_size = batch_size
        before = state or {"seconds": 0.0, "waited": 0.0}
        now = time.monotonic()
        self._start, self._reported = now - before["seconds"], now
        self._wait_s = before["waited"]

    def state_dict(self) -> dict[str, float]:
        """Return plain values, for a checkpoint."""
        return {"seconds": self.seconds(), "waited": self._wait_s}

    def measure_waits(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield the batches and measure how long each lets the training wait."""
        while True:
            start = time.monotonic()
            batch = next(batches, None)
            self._wait_s += time.monotonic() - start
            if batch is None:
                return
            yield batch

    def due(self) -> bool:
        """Tell whether to report: about once a second."""
        now = time.monotonic()
        if now - self._reported < _REPORT_INTERVAL_S:
            return False
        self._reported = now
        return True

    def seconds(self) -> float:
        """How long the epoch has taken so far."""
        return time.monotonic() - self._start

    def speed(self, steps: int) -> Speed:
        """The speed of the epoch after ``steps`` of its steps."""
        elapsed = max(self.seconds(), 1e-9)
        return Speed(steps * self._batch_size / elapsed, self._wait_s / elapsed)


class CheckpointInterval:
    """Decides when checkpoints are due within an epoch."""

    def __init__(self, steps: int | None, seconds: float | None) -> None:
        """At most so many ``steps`` or ``seconds`` after the last one; with neither, never."""
        self._steps, self._seconds = steps, seconds
        self.saved()

    def saved(self) -> None:
        """Start the interval again, after a checkpoint."""
        self._start, self._steps_since = time.monotonic(), 0

    def due(self, ahead_s: float = 0.0) -> bool:
        """Tell, after every step, whether the next checkpoint is due, or will be in ``ahead_s`` seconds.

        Never before half of an interval in seconds: a slow disk must not be written to all the time.
        """
        self._steps_since += 1
        if self._steps is not None:
            return self._steps_since >= self._steps
        return self._seconds is not None and time.monotonic() - self._start >= self._seconds - min(
            ahead_s, self._seconds / 2
        )

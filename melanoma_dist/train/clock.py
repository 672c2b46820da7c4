"""Times an epoch, and tells when the next checkpoint is due."""

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
    """Measures how many images a second are trained on, and which share of the time was spent waiting for them.

    Time before an interruption counts, and time between it and the continuation does not.
    """

    def __init__(self, batch_size: int, state: dict[str, float] | None = None) -> None:
        """``state``: what ``state_dict`` gave in the middle of this epoch."""
        self._batch_size = batch_size
        before = state or {"seconds": 0.0, "waited": 0.0}
        now = time.monotonic()
        self._start, self._reported = now - before["seconds"], now
        self._waited = before["waited"]

    def state_dict(self) -> dict[str, float]:
        """Plain values, for a checkpoint."""
        return {"seconds": self.seconds(), "waited": self._waited}

    def measure_waits(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """The batches, while the waits for them are measured."""
        while True:
            asked = time.monotonic()
            batch = next(batches, None)
            self._waited += time.monotonic() - asked
            if batch is None:
                return
            yield batch

    def due(self) -> bool:
        """Whether it is time to report: about once a second."""
        now = time.monotonic()
        if now - self._reported < _REPORT_INTERVAL_S:
            return False
        self._reported = now
        return True

    def seconds(self) -> float:
        """How long the epoch has taken so far."""
        return time.monotonic() - self._start

    def speed(self, steps: int) -> Speed:
        """Images per second of the whole unit in ``steps`` steps so far; share of the time spent waiting, 0 to 1."""
        elapsed = max(self.seconds(), 1e-9)
        return Speed(steps * self._batch_size / elapsed, self._waited / elapsed)


class CheckpointInterval:
    """When checkpoints are due within an epoch."""

    def __init__(self, steps: int | None, seconds: float | None) -> None:
        """At most so many ``steps`` or ``seconds`` after the last one; with neither, never."""
        self._steps, self._seconds = steps, seconds
        self.saved()

    def saved(self) -> None:
        """A checkpoint was written."""
        self._at, self._taken = time.monotonic(), 0

    def due(self, ahead_s: float = 0.0) -> bool:
        """Called after every step: whether the next checkpoint is due, or will be in ``ahead_s`` seconds.

        No sooner than after half of an interval in seconds: a slow disk is not to be written to all the time.
        """
        self._taken += 1
        if self._steps is not None:
            return self._taken >= self._steps
        return self._seconds is not None and time.monotonic() - self._at >= self._seconds - min(
            ahead_s, self._seconds / 2
        )

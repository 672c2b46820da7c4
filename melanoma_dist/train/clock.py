"""Times an epoch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

_REPORT_INTERVAL_S = 1.0


class Clock:
    """Measures how many images a second are trained on, and which share of the time was spent waiting for them."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._start = self._reported = time.monotonic()
        self._waited = 0.0
        self._steps = 0

    def timed(self, batches: Iterator[Any]) -> Iterator[Any]:
        """The batches, while the waits for them are measured."""
        while True:
            asked = time.monotonic()
            batch = next(batches, None)
            self._waited += time.monotonic() - asked
            if batch is None:
                return
            yield batch
            self._steps += 1

    def due(self) -> bool:
        """Whether it is time to report: about once a second."""
        now = time.monotonic()
        if now - self._reported < _REPORT_INTERVAL_S:
            return False
        self._reported = now
        return True

    def speed(self) -> dict[str, float]:
        """Images per second of the whole unit so far, and the share of the time spent waiting, 0 to 1."""
        elapsed = max(time.monotonic() - self._start, 1e-9)
        return {"images_per_s": self._steps * self._batch_size / elapsed, "wait_share": self._waited / elapsed}

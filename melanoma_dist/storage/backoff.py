"""Exponential backoff with jitter: how long to wait before a retry."""

from __future__ import annotations

import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Backoff:
    """Waits that double from one failure to the next, up to ``longest_s``, and vary at random by half."""

    first_s: float
    longest_s: float

    def wait_s(self, failures: int) -> float:
        """Return the seconds to wait after ``failures`` (1 or more) in a row."""
        doubled = self.first_s * 2.0 ** min(failures - 1, 60)
        return min(self.longest_s, doubled) * random.uniform(0.5, 1.5)  # noqa: S311  # nosec B311  # no secret

"""The configuration of interruptions: checkpoints, restarts, and how much a resumed run may differ."""

from __future__ import annotations

import re
from dataclasses import dataclass

from melanoma_dist.config.rules import at_least, between, check


@dataclass(frozen=True)
class FaultToleranceConfig:
    """How a run survives faults. No field changes the result of a run without faults."""

    max_restarts: int = 3
    """Restarts of a fold, from its last checkpoint, after its processes died."""
    max_preemptions: int = 20
    """Restarts of a fold after its node was preempted or died."""
    grace_s: int = 25
    """Seconds for the folds to save a checkpoint after Ctrl-C, SIGTERM or SIGUSR1."""
    max_skipped_steps: int = 10
    """Steps of an epoch that may be skipped because of a non-finite gradient. One more stops the fold."""
    max_corrupt_images: int = 10
    """Corrupt images that a fold may exclude from training. One more stops the fold."""
    collective_timeout_s: int = 300
    """Seconds that a rank waits for the other ranks before it fails, 5 to 86400."""
    checkpoint_every: str = "10m"
    """Time (`90s`, `10m`, `2h`) or steps (`500`) between checkpoints. Each epoch ends with a checkpoint in any case."""
    keep_checkpoints: bool = False
    """Keep the checkpoints of a finished run. By default they are removed at its end: nothing needs them any more."""
    allow_resize: bool = False
    """Resume a fold on another number of ranks. The global batches stay the same; last digits of metrics may not."""
    accept_changes: bool = False
    """Resume a run with other code, libraries or arithmetic; its record keeps both versions.
    Arithmetic: GPU or CPU, CPU threads, amp, channels_last, compile, sync_batchnorm."""

    def __post_init__(self) -> None:
        at_least(self, 0, "max_restarts", "max_preemptions", "max_skipped_steps", "max_corrupt_images", "grace_s")
        between(self, "collective_timeout_s", 5, 86400)
        rule = "must be a number of steps, or a time such as 90s, 10m or 2h"
        check(self, "checkpoint_every", re.fullmatch(r"0*[1-9]\d{0,8}[smh]?", self.checkpoint_every) is not None, rule)

    @property
    def checkpoint_interval(self) -> tuple[int | None, float | None]:
        """``checkpoint_every`` as (steps, None) or (None, seconds)."""
        seconds = {"s": 1, "m": 60, "h": 3600}.get(self.checkpoint_every[-1])
        if seconds is None:
            return int(self.checkpoint_every), None
        return None, float(self.checkpoint_every[:-1]) * seconds

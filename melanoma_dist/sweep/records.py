"""The records of ``journal.jsonl``: one class for each kind of line, named by its field ``what``."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Literal

from melanoma_dist.sweep.racing import FoldTrial
from melanoma_dist.sweep.space import Values


@dataclass(frozen=True)
class _Record:
    time: float
    """Seconds since 1970."""


@dataclass(frozen=True)
class _UnitRecord(_Record):
    configuration: int
    fold: int

    @property
    def trial(self) -> FoldTrial:
        """The unit."""
        return FoldTrial(self.configuration, self.fold)


@dataclass(frozen=True)
class SessionStarted(_Record):
    """A command starts to work on the sweep."""

    trials: int | None
    """Configurations to try; None for no limit but the time budget."""
    device: str
    """GPU or CPU core."""
    per_unit: float
    """Devices that each unit holds."""
    ranks: int
    """Ranks of each unit."""
    share: float
    """Share of a GPU for each rank."""
    side_by_side: int
    """Units at a time."""
    what: Literal["session"] = "session"


@dataclass(frozen=True)
class UnitStarted(_UnitRecord):
    """A unit starts; a first fold with the values of its configuration, as ``as_written`` gives them."""

    values: Values | None = None
    what: Literal["start"] = "start"


@dataclass(frozen=True)
class UnitRestarted(_UnitRecord):
    """A later command restarts a unit from its checkpoint."""

    what: Literal["restart"] = "restart"


@dataclass(frozen=True)
class EpochFinished(_UnitRecord):
    """A unit finished an epoch (from 1), which took ``seconds``."""

    epoch: int
    auc: float
    best_auc: float
    seconds: float
    what: Literal["epoch"] = "epoch"


@dataclass(frozen=True)
class UnitStopped(_UnitRecord):
    """The sweep stops a unit after an epoch."""

    epoch: int
    why: str
    what: Literal["stop"] = "stop"


@dataclass(frozen=True)
class UnitEnded(_UnitRecord):
    """A unit released its devices, which it had held for ``seconds``: finished, stopped or paused."""

    state: str
    seconds: float
    what: Literal["end"] = "end"


@dataclass(frozen=True)
class UnitFailed(_UnitRecord):
    """A unit failed for good after ``seconds``."""

    why: str
    seconds: float
    what: Literal["fail"] = "fail"


@dataclass(frozen=True)
class ConfigDropped(_Record):
    """A configuration lost the race between its folds."""

    configuration: int
    why: str
    what: Literal["drop"] = "drop"


UnitRecord = UnitStarted | UnitRestarted | EpochFinished | UnitStopped | UnitEnded | UnitFailed
Record = SessionStarted | UnitRecord | ConfigDropped


def timestamp() -> float:
    """This moment, in seconds since 1970, to the millisecond."""
    return round(time.time(), 3)

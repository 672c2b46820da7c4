"""``journal.jsonl``: everything that happened in a sweep, one ``Record`` a line, in the order of the decisions.

The field ``what`` names the class of a line. The state of a sweep is what a controller holds after it replays these
records. Nothing else is saved, and nothing is unpickled.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from melanoma_dist.errors import DataError
from melanoma_dist.storage import atomic
from melanoma_dist.storage.untrusted import MEBIBYTE, parse_json, read_text
from melanoma_dist.sweep.racing import FoldTrial
from melanoma_dist.sweep.space import Values

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_MAX_BYTES = 512 * MEBIBYTE  # of the file; a sweep of ten thousand units writes fifty


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
    """A unit starts, or continues after a pause; a first fold with its values, as ``as_written`` gives them."""

    values: Values | None = None
    parent: int | None = None
    """The configuration whose checkpoint the child of a population starts from."""
    what: Literal["start"] = "start"


@dataclass(frozen=True)
class UnitRestarted(_UnitRecord):
    """A later command restarts a unit from its checkpoint."""

    what: Literal["restart"] = "restart"


@dataclass(frozen=True)
class EpochFinished(_UnitRecord):
    """A unit finished an epoch (from 1), which took ``seconds``."""

    epoch: int
    score: float
    best_score: float
    seconds: float
    what: Literal["epoch"] = "epoch"


@dataclass(frozen=True)
class UnitStopped(_UnitRecord):
    """The sweep stops a unit after an epoch."""

    epoch: int
    why: str
    what: Literal["stop"] = "stop"


@dataclass(frozen=True)
class UnitWaits(_UnitRecord):
    """A first fold waits after an epoch, until its configuration is among the best, or its population there too."""

    epoch: int
    why: str
    what: Literal["wait"] = "wait"


@dataclass(frozen=True)
class UnitEnded(_UnitRecord):
    """A unit released its devices, which it had held for ``seconds``: finished, stopped, paused or waiting."""

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
    """A configuration lost the race between its folds, or its place in a population."""

    configuration: int
    why: str
    what: Literal["drop"] = "drop"


UnitRecord = UnitStarted | UnitRestarted | EpochFinished | UnitStopped | UnitWaits | UnitEnded | UnitFailed
Record = SessionStarted | UnitRecord | ConfigDropped


def timestamp() -> float:
    """This moment, in seconds since 1970, to the millisecond."""
    return round(time.time(), 3)


class Journal:
    """The journal of one sweep. Each record is on disk before anyone acts on it."""

    def __init__(self, path: Path) -> None:
        """Open it, and cut off an incomplete last line. Raises DataError for a corrupt one."""
        self._path = path
        self.records = read_journal(path)
        content = path.read_bytes() if path.exists() else b""
        complete = content[: content.rfind(b"\n") + 1]
        if content != complete:
            atomic.write_file(path, lambda aside: aside.write_bytes(complete))

    def write(self, record: Record) -> None:
        """Add a record; it is on disk when this returns. Raises ValueError for NaN, which JSON cannot hold."""
        line = json.dumps({"what": record.what, **asdict(record)}, allow_nan=False) + "\n"
        with self._path.open("ab") as file:
            file.write(line.encode())
            file.flush()
            os.fsync(file.fileno())
        self.records.append(record)


def read_journal(path: Path) -> list[Record]:
    """All complete records. Raises DataError for a malformed line other than the last."""
    try:
        lines = read_text(path, _MAX_BYTES).split("\n") if path.exists() else []
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Restore the file, or choose another --name.") from error
    records: list[Record] = []
    started: set[FoldTrial] = set()
    for number, line in enumerate(lines[:-1], 1):  # a kill cut off what follows the last line break
        try:
            parse_json(line)  # refuses what pydantic would accept: NaN, numbers of more than 64 bits, deep nesting
            record: Record = _adapter().validate_json(line, strict=True)
            if isinstance(record, UnitStarted):
                started.add(record.trial)
            elif isinstance(record, UnitRecord) and record.trial not in started:
                raise ValueError(f"{record.trial} was not started")
        except ValueError as error:
            raise DataError(
                f"{path}: line {number} is corrupt, or of another version. Restore the file, or choose another --name."
            ) from error
        records.append(record)
    return records


@cache
def _adapter() -> TypeAdapter[Record]:
    from pydantic import Field, TypeAdapter

    return TypeAdapter(Annotated[Record, Field(discriminator="what")])


def as_written(values: Mapping[str, object]) -> Values:
    """Values as the journal holds them: JSON has no infinity."""
    return {key: str(value) if value in (math.inf, -math.inf) else value for key, value in values.items()}

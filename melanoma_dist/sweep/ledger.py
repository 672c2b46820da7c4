"""The cost of a sweep, from its journal: device-seconds of each unit, what stopping saved, and the cost of each score.

A device is a GPU (or the share of one that a unit holds), or a CPU core. A unit costs its devices from its start until
it releases them, whether it trains or not.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property

import pandas as pd

from melanoma_dist.sweep.journal import (
    ConfigDropped,
    EpochFinished,
    Record,
    SessionStarted,
    UnitEnded,
    UnitFailed,
    UnitRecord,
    UnitRestarted,
    UnitStarted,
    UnitStopped,
    UnitWaits,
)
from melanoma_dist.sweep.racing import FoldTrial


@dataclass
class Allocation:
    """A stretch of time in which a unit holds its devices."""

    start: float  # seconds since 1970
    devices: float
    seconds: float = 0.0
    training_seconds: float = 0.0
    """The time of its epochs."""

    @property
    def overhead(self) -> float:
        """Time in which the unit starts or ends, in seconds."""
        return max(0.0, self.seconds - self.training_seconds)


@dataclass
class UnitCost:
    """A unit, over all commands that trained it."""

    trial: FoldTrial
    allocations: list[Allocation] = field(default_factory=list)
    epoch_seconds: list[float] = field(default_factory=list)
    best_score: float | None = None
    state: str = "unfinished"
    why: str = ""

    @property
    def seconds(self) -> float:
        """Time in which it held its devices."""
        return sum(allocation.seconds for allocation in self.allocations)

    @property
    def device_seconds(self) -> float:
        """That time, times its devices."""
        return sum(allocation.seconds * allocation.devices for allocation in self.allocations)

    @property
    def overhead(self) -> float:
        """Time to start and to end once, in seconds: in one go, a fold that waited would not have started again.

        Its dearest allocation stands for that, as a mean would call a cold first start the cost of a warm one.
        """
        return max(allocation.overhead for allocation in self.allocations)


def unit_costs(records: Sequence[Record]) -> dict[FoldTrial, UnitCost]:
    """The cost of every started unit. After a kill, a unit counts to its last epoch."""
    units: dict[FoldTrial, UnitCost] = {}
    devices = 1.0
    for record in records:
        if isinstance(record, UnitRecord):
            unit = units.setdefault(record.trial, UnitCost(record.trial))
        match record:
            case SessionStarted():
                devices = record.per_unit
            case UnitStarted() | UnitRestarted():
                unit.allocations.append(Allocation(record.time, devices))
                unit.why = ""
            case EpochFinished():
                unit.epoch_seconds.append(record.seconds)
                unit.best_score = record.best_score
                unit.allocations[-1].seconds = record.time - unit.allocations[-1].start
                unit.allocations[-1].training_seconds += record.seconds
            case UnitStopped() | UnitWaits():
                unit.why = record.why
            case UnitEnded():
                unit.state, unit.allocations[-1].seconds = record.state, record.seconds
            case UnitFailed():
                unit.state, unit.why, unit.allocations[-1].seconds = "failed", record.why, record.seconds
            case ConfigDropped():
                first = units.get(FoldTrial(record.configuration, 0))
                if first is not None and first.state == "waiting":  # it lost its place in a population
                    first.state, first.why = "stopped", record.why
    return units


@dataclass(frozen=True)
class LedgerRow:
    """A row of ``ledger.parquet``: the cost of a unit."""

    configuration: int
    fold: int
    state: str
    why: str
    epochs: int
    best_score: float | None
    started: float
    """Seconds since 1970."""
    seconds: float
    device_seconds: float
    saved_device_seconds: float | None
    """Cost of the folds and epochs that the configuration did not train, in the row of its last unit."""


@dataclass(frozen=True)
class Ledger:
    """The costs of a sweep."""

    device: str
    """The device that is counted: GPU or CPU core."""
    spent: float
    """Device-seconds."""
    full: float | None
    """Estimated device-seconds of all folds of the same configurations; None without a finished epoch."""
    units: list[LedgerRow]
    """By configuration and fold."""

    def of(self, configuration: int) -> list[LedgerRow]:
        """The units of a configuration."""
        return self._by_configuration.get(configuration, [])

    @cached_property
    def _by_configuration(self) -> dict[int, list[LedgerRow]]:
        """Grouped once: a search through all units for each configuration grows with the square of a sweep."""
        rows: dict[int, list[LedgerRow]] = {}
        for row in self.units:
            rows.setdefault(row.configuration, []).append(row)
        return rows

    def table(self, score: str) -> pd.DataFrame:
        """The content of ``ledger.parquet``: a row per unit, the fields of ``LedgerRow``, which name the score."""
        table = pd.DataFrame(self.units, columns=[field.name for field in fields(LedgerRow)])
        return with_score_names(table, score)


def with_score_names(table: pd.DataFrame, score: str) -> pd.DataFrame:
    """Name the columns of scores as people know the score: ``best_auc``, ``best_jaccard``."""
    return table.rename(columns=lambda name: re.sub(r"_score$", f"_{score.lower()}", name))


def make_ledger(records: Sequence[Record], folds: int) -> Ledger:
    """Compute the ledger of a journal.

    The full cost is an estimate. A trained fold counts as it was, without the starts after a wait. The epochs and folds
    that a configuration did not train count by its mean time per epoch, the mean number of epochs of finished units,
    and the mean time that a unit needs to start and to end.
    """
    units = unit_costs(records)
    sessions = [record for record in records if isinstance(record, SessionStarted)]
    configurations: dict[int, list[UnitCost]] = {}
    for unit in units.values():
        configurations.setdefault(unit.trial.configuration, []).append(unit)
    full = _full_costs(units.values(), configurations, folds)
    rows = [_row(unit, siblings, full.get(number)) for number, siblings in configurations.items() for unit in siblings]
    return Ledger(
        device=sessions[-1].device if sessions else "device",
        spent=sum(unit.device_seconds for unit in units.values()),
        full=sum(full.values()) if full else None,
        units=sorted(rows, key=lambda row: (row.configuration, row.fold)),
    )


def _full_costs(
    units: Collection[UnitCost], configurations: Mapping[int, list[UnitCost]], folds: int
) -> dict[int, float]:
    """Device-seconds of all folds, for each configuration with a finished epoch."""
    finished = [unit for unit in units if unit.state == "finished"] or [unit for unit in units if unit.epoch_seconds]
    if not finished:
        return {}
    epochs = sum(len(unit.epoch_seconds) for unit in finished) / len(finished)
    overhead = sum(unit.overhead for unit in finished) / len(finished)
    costs = {}
    for number, all_folds in sorted(configurations.items()):
        siblings = [unit for unit in all_folds if unit.epoch_seconds]
        if siblings:
            times = [seconds for unit in siblings for seconds in unit.epoch_seconds]
            per_epoch = sum(times) / len(times)
            trained = sum(_in_one_go(unit, epochs, per_epoch) for unit in siblings)
            others = (folds - len(siblings)) * (overhead + epochs * per_epoch)
            costs[number] = (trained + others) * siblings[0].allocations[-1].devices
    return costs


def _in_one_go(unit: UnitCost, epochs: float, per_epoch: float) -> float:
    """Seconds of a fold trained to its end, ``epochs`` of ``per_epoch`` seconds, without a wait."""
    missing = 0.0 if unit.state == "finished" else max(0.0, epochs - len(unit.epoch_seconds))
    return unit.overhead + sum(unit.epoch_seconds) + missing * per_epoch


def _row(unit: UnitCost, siblings: list[UnitCost], full: float | None) -> LedgerRow:
    """The row of a unit among all units of its configuration, whose folds would all cost ``full``."""
    saved = None
    if full is not None and unit is max(siblings, key=lambda other: other.trial.fold):
        saved = round(max(0.0, full - sum(other.device_seconds for other in siblings)), 3)
    return LedgerRow(
        *unit.trial, unit.state, unit.why, len(unit.epoch_seconds), unit.best_score, unit.allocations[0].start,
        round(unit.seconds, 3), round(unit.device_seconds, 3), saved,
    )  # fmt: skip


@dataclass(frozen=True)
class Milestone:
    """A new best score, and the device-seconds spent by then."""

    device_seconds: float
    score: float
    configuration: int


def milestones(records: Sequence[Record], folds: int) -> tuple[list[Milestone], list[Milestone]]:
    """Each new best score of a first fold, and each new best mean over all folds: two lists, in order of cost."""
    units = unit_costs(records)
    first: list[Milestone] = []
    complete: list[Milestone] = []
    latest: dict[FoldTrial, float] = {}
    finished: dict[int, list[float]] = {}
    for record in records:
        if isinstance(record, EpochFinished):
            latest[record.trial] = record.best_score
            if record.fold == 0:
                _add_milestone(first, record.best_score, record.configuration, units, record.time)
        elif isinstance(record, UnitEnded) and record.state == "finished":
            scores = finished.setdefault(record.configuration, [])
            scores.append(latest[record.trial])
            if len(scores) == folds:
                _add_milestone(complete, sum(scores) / folds, record.configuration, units, record.time)
    return first, complete


def _add_milestone(
    earlier: list[Milestone], score: float, configuration: int, units: dict[FoldTrial, UnitCost], moment: float
) -> None:
    if not earlier or score > earlier[-1].score:
        allocations = (allocation for unit in units.values() for allocation in unit.allocations)
        spent = sum(min(max(0.0, moment - each.start), each.seconds) * each.devices for each in allocations)
        earlier.append(Milestone(spent, score, configuration))

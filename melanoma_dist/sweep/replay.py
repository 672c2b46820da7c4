"""Brings a controller to where a journal ends, and completes a journal that a kill cut off."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.sweep.controller import Controller
from melanoma_dist.sweep.journal import (
    ConfigDropped,
    EpochFinished,
    Journal,
    Record,
    SessionStarted,
    UnitEnded,
    UnitFailed,
    UnitRestarted,
    UnitStarted,
    UnitStopped,
    UnitWaits,
    as_written,
    timestamp,
)
from melanoma_dist.sweep.racing import FoldTrial


def replay(records: Sequence[Record], controller: Controller, path: Path) -> None:
    """Bring a new controller to where the journal ends.

    Raises DataError where the controller decides otherwise: another version wrote the journal, or someone edited it.
    """
    for number, record in enumerate(records, 1):
        try:
            agrees = _replay(record, controller)
        except (ConfigError, LookupError, ValueError, ArithmeticError):  # the record is of a unit that does not run
            agrees = False
        if not agrees:
            raise DataError(
                f"{path}: line {number}: another decision follows now from the lines before it. Another version wrote "
                "the file, or it was edited. Choose another --name."
            )


def _replay(record: Record, controller: Controller) -> bool:
    """Replay one record. Returns whether the controller decides now as it did then."""
    match record:
        case SessionStarted():
            controller.trials = record.trials
        case UnitStarted():
            if controller.next() != record.trial or record.parent != controller.parent(record.configuration):
                return False
            return record.values in (None, as_written(controller.values[record.configuration]))
        case EpochFinished():
            controller.report_epoch(record.trial, record.epoch, record.best_score, record.score)
        case UnitEnded(state="finished"):
            controller.finish(record.trial)
        case UnitEnded(state="stopped"):
            controller.running.pop(record.trial, None)
        case UnitEnded(state="waiting"):
            controller.release(record.trial)
        case UnitFailed():
            controller.fail(record.trial, record.why)
        case UnitWaits():
            return controller.reason_to_leave(record.trial) == record.why
        case UnitStopped() | ConfigDropped():
            return controller.racing.states[record.configuration].stop_reason == record.why
    return True


def add_missing_records(journal: Journal, controller: Controller) -> None:
    """After a replay, write the records that a kill kept from the disk: decisions, and the ends of stopped units."""
    recorded = {
        record.configuration
        for record in journal.records
        if isinstance(record, UnitStopped | ConfigDropped | UnitFailed)
    }
    open_units = _open_units(journal.records)
    for number, state in enumerate(controller.racing.states):
        if state.stop_reason is not None and number not in recorded:
            unit = open_units.get(FoldTrial(number, 0))
            if state.scores or unit is None:  # without a unit, it waited in a population
                journal.write(ConfigDropped(timestamp(), number, state.stop_reason))
            else:
                journal.write(UnitStopped(timestamp(), number, 0, unit.epoch, state.stop_reason))
    for trial, unit in open_units.items():
        if trial.configuration in controller.waiting:
            if not unit.is_waiting:
                why = controller.waiting[trial.configuration].reason
                journal.write(UnitWaits(timestamp(), *trial, unit.epoch, why))
            journal.write(UnitEnded(timestamp(), *trial, "waiting", round(unit.latest - unit.start, 3)))
            for drop in controller.release(trial):
                journal.write(ConfigDropped(timestamp(), drop.configuration, drop.reason))
        elif controller.racing.states[trial.configuration].stop_reason is not None:
            journal.write(UnitEnded(timestamp(), *trial, "stopped", round(unit.latest - unit.start, 3)))
    for trial in list(controller.running):  # paused units too
        if controller.racing.states[trial.configuration].stop_reason is not None:
            del controller.running[trial]


@dataclass
class _OpenUnit:
    """A unit without an end: the times of its start and of its latest record, and its last epoch."""

    start: float
    latest: float
    epoch: int = 0
    is_waiting: bool = False


def _open_units(records: Sequence[Record]) -> dict[FoldTrial, _OpenUnit]:
    units: dict[FoldTrial, _OpenUnit] = {}
    for record in records:
        match record:
            case UnitStarted() | UnitRestarted():
                units[record.trial] = _OpenUnit(record.time, record.time)
            case EpochFinished():
                units[record.trial].latest, units[record.trial].epoch = record.time, record.epoch
            case UnitWaits():
                units[record.trial].is_waiting = True
            case UnitEnded() | UnitFailed():
                units.pop(record.trial, None)
    return units

"""What a sweep cost, from its journal: each unit's device-seconds, what stopping saved, which AUC came at what cost.

A device is a GPU (or the part of one a unit was given), or a CPU core. A unit costs its devices from the moment it is
started to the moment it releases them, training or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from melanoma_dist.sweep.journal import Record
from melanoma_dist.sweep.racing import FoldTrial

COLUMNS = (
    "configuration", "fold", "state", "why", "epochs", "best_auc", "begun", "seconds", "device_seconds",
    "saved_device_seconds",
)  # fmt: skip


@dataclass
class Spell:
    """One stretch of time in which a unit held its devices."""

    begun: float  # seconds since 1970
    devices: float
    seconds: float = 0.0


@dataclass
class UnitCost:
    """A unit, over all commands that worked at it."""

    place: FoldTrial
    spells: list[Spell] = field(default_factory=list)
    epoch_seconds: list[float] = field(default_factory=list)
    best_auc: float | None = None
    state: str = "unfinished"
    why: str = ""

    @property
    def seconds(self) -> float:
        """Time in which it held its devices."""
        return sum(spell.seconds for spell in self.spells)

    @property
    def device_seconds(self) -> float:
        """That time, times its devices."""
        return sum(spell.seconds * spell.devices for spell in self.spells)


def unit_costs(records: Sequence[Record]) -> dict[FoldTrial, UnitCost]:
    """Every unit that was started. One whose command was killed is counted to its last epoch."""
    units: dict[FoldTrial, UnitCost] = {}
    devices = 1.0
    for record in records:
        if record["what"] == "session":
            devices = float(record["per_unit"])
        if "fold" in record:
            place = FoldTrial(record["configuration"], record["fold"])
            _take(units.setdefault(place, UnitCost(place)), record, devices)
    return units


def _take(unit: UnitCost, record: Record, devices: float) -> None:
    what = record["what"]
    if what in ("start", "restart"):
        unit.spells.append(Spell(record["time"], devices))
    elif what == "epoch":
        unit.epoch_seconds.append(record["seconds"])
        unit.best_auc = record["best_auc"]
        unit.spells[-1].seconds = record["time"] - unit.spells[-1].begun
    elif what == "stop":
        unit.why = record["why"]
    elif what == "end":
        unit.state, unit.spells[-1].seconds = record["state"], record["seconds"]
    elif what == "fail":
        unit.state, unit.why, unit.spells[-1].seconds = "failed", record["why"], record["seconds"]


@dataclass(frozen=True)
class Ledger:
    """The costs of a sweep."""

    device: str
    """What is counted: GPU or CPU core."""
    spent: float
    """Device-seconds."""
    full: float | None
    """Device-seconds that all folds of the same configurations would have cost, estimated; None without an epoch."""
    units: pd.DataFrame
    """A row per unit, ``COLUMNS``."""


def make_ledger(records: Sequence[Record], folds: int) -> Ledger:
    """The ledger of a journal.

    The full cost is estimated: each configuration's mean time per epoch, as many epochs as finished units took on
    average, and the mean time a unit needs to start and to end.
    """
    units = unit_costs(records)
    sessions = [record for record in records if record["what"] == "session"]
    full = _full_costs(list(units.values()))
    of_configuration: dict[int, list[UnitCost]] = {}
    for unit in units.values():
        of_configuration.setdefault(unit.place.configuration, []).append(unit)
    rows = [
        _row(unit, of_configuration[number], full.get(number), folds)
        for number, mine in of_configuration.items()
        for unit in mine
    ]
    table = pd.DataFrame(rows, columns=list(COLUMNS)).sort_values(["configuration", "fold"], ignore_index=True)
    return Ledger(
        device=sessions[-1]["device"] if sessions else "device",
        spent=sum(unit.device_seconds for unit in units.values()),
        full=sum(full.values()) * folds if full else None,
        units=table,
    )


def _full_costs(units: list[UnitCost]) -> dict[int, float]:
    """Device-seconds of one whole fold of each configuration of which an epoch was seen."""
    finished = [unit for unit in units if unit.state == "finished"] or [unit for unit in units if unit.epoch_seconds]
    if not finished:
        return {}
    epochs = sum(len(unit.epoch_seconds) for unit in finished) / len(finished)
    overhead = sum(max(0.0, unit.seconds - sum(unit.epoch_seconds)) for unit in finished) / len(finished)
    costs = {}
    for number in sorted({unit.place.configuration for unit in units}):
        mine = [unit for unit in units if unit.place.configuration == number and unit.epoch_seconds]
        if mine:
            seen = [seconds for unit in mine for seconds in unit.epoch_seconds]
            costs[number] = (overhead + epochs * sum(seen) / len(seen)) * mine[0].spells[-1].devices
    return costs


def _row(unit: UnitCost, mine: list[UnitCost], full: float | None, folds: int) -> dict[str, Any]:
    """The row of a unit; ``mine``: all of its configuration, of which a whole fold would have cost ``full``."""
    saved = None
    if full is not None and unit is max(mine, key=lambda other: other.place.fold):
        # What the configuration did without is booked with its last unit.
        saved = max(0.0, full * folds - sum(other.device_seconds for other in mine))
    return {
        "configuration": unit.place.configuration, "fold": unit.place.fold, "state": unit.state, "why": unit.why,
        "epochs": len(unit.epoch_seconds), "best_auc": unit.best_auc, "begun": unit.spells[0].begun,
        "seconds": round(unit.seconds, 3), "device_seconds": round(unit.device_seconds, 3),
        "saved_device_seconds": None if saved is None else round(saved, 3),
    }  # fmt: skip


@dataclass(frozen=True)
class Milestone:
    """A higher AUC than before, and what had been spent by then."""

    device_seconds: float
    auc: float
    configuration: int


def milestones(records: Sequence[Record], folds: int) -> tuple[list[Milestone], list[Milestone]]:
    """When a first fold, and when the mean over all folds, rose above all before: two lists, in order of cost."""
    units = unit_costs(records)
    first: list[Milestone] = []
    whole: list[Milestone] = []
    latest: dict[FoldTrial, float] = {}
    done: dict[int, list[float]] = {}
    for record in records:
        place = FoldTrial(record.get("configuration", -1), record.get("fold", -1))
        if record["what"] == "epoch":
            latest[place] = record["best_auc"]
            if place.fold == 0:
                _rise(first, record["best_auc"], place.configuration, units, record["time"])
        elif record["what"] == "end" and record["state"] == "finished":
            aucs = done.setdefault(place.configuration, [])
            aucs.append(latest[place])
            if len(aucs) == folds:
                _rise(whole, sum(aucs) / folds, place.configuration, units, record["time"])
    return first, whole


def _rise(
    found: list[Milestone], auc: float, configuration: int, units: dict[FoldTrial, UnitCost], moment: float
) -> None:
    if not found or auc > found[-1].auc:
        found.append(Milestone(_spent_until(moment, units), auc, configuration))


def _spent_until(moment: float, units: dict[FoldTrial, UnitCost]) -> float:
    spells = (spell for unit in units.values() for spell in unit.spells)
    return sum(min(max(0.0, moment - spell.begun), spell.seconds) * spell.devices for spell in spells)

"""``journal.jsonl``: all that happened in a sweep, a line each, in the order in which it was decided upon.

    session   trials, device, per_unit, ranks, share, side_by_side    a command began to work at the sweep
    start     configuration, fold, values        a unit was started (values: of a new configuration)
    restart   configuration, fold                a later command started it again from its checkpoint
    epoch     configuration, fold, epoch, auc, best_auc, seconds
    stop      configuration, fold, epoch, why    it was told to stop
    end       configuration, fold, state, seconds    it released its devices; finished, stopped or paused
    fail      configuration, fold, why, seconds
    drop      configuration, why                 a configuration lost the race

Every line has ``time`` (seconds since 1970). The sweep's state is what a conductor says when it is told these lines;
nothing else is saved, and nothing is unpickled.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from melanoma_dist.config.rules import has_type
from melanoma_dist.errors import DataError
from melanoma_dist.storage import atomic
from melanoma_dist.storage.untrusted import MEBIBYTE, parse_json, read_text
from melanoma_dist.sweep.controller import Controller
from melanoma_dist.sweep.racing import FoldTrial

Record = dict[str, Any]
_MOST = 512 * MEBIBYTE  # of the file; a sweep of ten thousand units writes fifty
_UNIT = {"configuration": int, "fold": int}
_FIELDS: dict[str, dict[str, Any]] = {
    "session": {
        "trials": int | None, "device": str, "per_unit": float, "ranks": int, "share": float, "side_by_side": int,
    },
    "start": _UNIT,
    "restart": _UNIT,
    "epoch": {**_UNIT, "epoch": int, "best_auc": float, "seconds": float},
    "stop": {**_UNIT, "epoch": int, "why": str},
    "end": {**_UNIT, "state": str, "seconds": float},
    "fail": {**_UNIT, "why": str, "seconds": float},
    "drop": {"configuration": int, "why": str},
}  # fmt: skip
"""What each kind of record must have, beside its time."""


class Journal:
    """The journal of one sweep, on disk before anything is done about it."""

    def __init__(self, path: Path) -> None:
        """Open it, keeping what is there but a last line that was cut off. Raises DataError for a damaged one."""
        self._path = path
        self.records = read_journal(path)
        whole = "".join(_line(record) for record in self.records).encode()
        if path.exists() and path.read_bytes() != whole:
            atomic.write_file(path, lambda aside: aside.write_bytes(whole))

    def write(self, what: str, **fields: Any) -> None:
        """Add a line; it is on the disk when this returns."""
        record = {"what": what, "time": round(time.time(), 3), **fields}
        line = _line(record).encode()
        with self._path.open("ab") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self.records.append(record)


def read_journal(path: Path) -> list[Record]:
    """All whole records. Raises DataError for a line, other than the last, that is none."""
    lines = _text(path).split("\n") if path.exists() else []
    records: list[Record] = []
    started: set[FoldTrial] = set()
    for number, line in enumerate(lines[:-1], 1):  # what follows the last line break was cut off
        try:
            records.append(_checked(parse_json(line), started))
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}: line {number} is damaged. Restore the file, or choose another --name.") from error
    return records


def _checked(record: Any, started: set[FoldTrial]) -> Record:
    """A record with every field that its kind has, and not of a unit that was never ``started``."""
    kinds = {"time": float, **_FIELDS[record["what"]]}
    if wrong := [name for name, kind in kinds.items() if not has_type(record[name], kind)]:
        raise ValueError(f"{', '.join(wrong)} of another kind")
    if "fold" in record:
        place = FoldTrial(record["configuration"], record["fold"])
        if record["what"] == "start":
            started.add(place)
        elif place not in started:
            raise ValueError(f"{place} was not started")
    return dict(record)


def _text(path: Path) -> str:
    try:
        return read_text(path, _MOST)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}). Restore the file, or choose another --name.") from error


def replay(records: list[Record], conductor: Controller, path: Path) -> None:
    """Bring a new conductor to where the journal ends.

    Raises DataError where it would have decided otherwise: the journal is another version's, or was edited.
    """
    for number, record in enumerate(records, 1):
        try:
            agrees = _agrees(record, conductor)
        except (LookupError, ValueError, ArithmeticError):  # it tells of units that are not running
            agrees = False
        if not agrees:
            raise DataError(
                f"{path}: line {number}: another decision follows now from the lines before it. It was written by "
                "another version or edited; choose another --name."
            )


def settle(journal: Journal, conductor: Controller) -> None:
    """Add the lines about decided things that a kill kept from being written, after the journal was told again."""
    told = {record["configuration"] for record in journal.records if record["what"] in ("stop", "drop", "fail")}
    open_units = _open_units(journal.records)
    for number, runner in enumerate(conductor.race.runners):
        if runner.out is not None and number not in told:
            if runner.aucs:
                journal.write("drop", configuration=number, why=runner.out)
            else:
                last = open_units[FoldTrial(number, 0)][-1]
                journal.write("stop", configuration=number, fold=0, epoch=last["epoch"], why=runner.out)
    for place, records in open_units.items():
        if conductor.race.runners[place.configuration].out is not None:
            seconds = round(records[-1]["time"] - records[0]["time"], 3)
            journal.write("end", configuration=place.configuration, fold=place.fold, state="stopped", seconds=seconds)

    for place in list(conductor.running):
        if conductor.race.runners[place.configuration].out is not None:
            del conductor.running[place]


def as_written(values: Mapping[str, Any]) -> Record:
    """Values as the journal holds them: JSON has no infinity."""
    return {key: str(value) if value in (math.inf, -math.inf) else value for key, value in values.items()}


def _open_units(records: list[Record]) -> dict[FoldTrial, list[Record]]:
    """The units that did not end, each with its start and the epochs since."""
    units: dict[FoldTrial, list[Record]] = {}
    for record in records:
        place = FoldTrial(record.get("configuration", -1), record.get("fold", -1))
        if record["what"] in ("start", "restart"):
            units[place] = [record]
        elif record["what"] == "epoch":
            units[place].append(record)
        elif record["what"] in ("end", "fail"):
            units.pop(place, None)
    return units


def _agrees(record: Record, conductor: Controller) -> bool:
    """Tell one record, and say whether what is decided is what was decided then."""
    what = record["what"]
    place = FoldTrial(record.get("configuration", -1), record.get("fold", -1))
    if what == "session":
        conductor.trials = record["trials"]
    elif what == "start":
        same = conductor.next() == place
        return same and record.get("values") in (None, as_written(conductor.values[place.configuration]))
    elif what == "epoch":
        conductor.epoch(place, record["epoch"], record["best_auc"])
    elif what == "end" and record["state"] == "finished":
        conductor.finish(place)
    elif what == "end" and record["state"] == "stopped":
        conductor.running.pop(place, None)
    elif what == "fail":
        conductor.fail(place, record["why"])
    elif what in ("stop", "drop"):
        return bool(conductor.race.runners[place.configuration].out == record["why"])
    return True


def _line(record: Record) -> str:
    return json.dumps(record, allow_nan=False) + "\n"

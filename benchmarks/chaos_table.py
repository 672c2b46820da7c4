"""The outcome of the kills of `chaos.py`: repeated steps, time until training resumed, and the table."""

from __future__ import annotations

import statistics
import sys
import time
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from melanoma_dist import console
from tests.chaos.outcome import StepNoted, steps_noted

_MOMENTS = ("start", "step", "validation", "checkpoint", "between", "work", "end")
_HEADER = ["fault", "moment", "kills", "recovered", "repeated steps", "seconds", "orphans", "byte-identical"]


@dataclass
class Kill:
    """One injected fault."""

    fault: str
    moment: str
    """What the target process did at that time."""
    fold: int | None
    """The fold it trained; None for the command."""
    at: float
    """Time by the monotonic clock."""
    code: int | None = None
    """Exit code of the command after SIGTERM."""
    orphans: int = 0
    repeated: list[int] = field(default_factory=list)
    """Repeated steps of each fold."""
    seconds: float | None = None
    """Until the fold's next step, or its result if there was no step; None: never."""
    identical: bool = False
    """Whether its run ended correctly."""

    def __str__(self) -> str:
        return self.fault if self.code is None else f"{self.fault}, exit code {self.code}"


def trace_recovery(kill: Kill, trace: Path, run: Path) -> None:
    """Fill in the outcome of a kill, from the recorded steps and the files of the finished run."""
    pattern = f"fold-{kill.fold}" if kill.fault in ("rank", "node") else "fold-*"
    resumed = {}
    for file in trace.glob(pattern):
        if steps_around := _first_new_step(steps_noted(file), kill.at):
            before, after = steps_around
            kill.repeated.append(before.number + 1 - after.number if before else 0)
            resumed[file.name] = after.at - kill.at
    results = [run / f"fold-{kill.fold}" / "predictions.parquet", run / "summary.json"]
    ends = [_monotonic(path) - kill.at for path in results if path.is_file() and _monotonic(path) > kill.at]
    aimed = resumed.get(f"fold-{kill.fold}") if kill.fold is not None else min(resumed.values(), default=None)
    kill.seconds = aimed if aimed is not None else min(ends, default=None)


def show_kills(kills: list[Kill]) -> None:
    """Show the kills by fault and moment."""

    def place(kill: Kill) -> tuple[str, int]:
        return str(kill), _MOMENTS.index(kill.moment)

    rows = [_row(list(group)) for _, group in groupby(sorted(kills, key=place), key=place)]
    console.table("Faults by moment, and their outcome", _HEADER, [*rows, _row(kills, "all")])


def _row(kills: list[Kill], name: str | None = None) -> list[object]:
    back = [kill.seconds for kill in kills if kill.seconds is not None]
    repeated = [steps for kill in kills for steps in kill.repeated]
    return [
        name or str(kills[0]),
        "" if name else kills[0].moment,
        len(kills),
        len(back),
        f"{statistics.median(repeated):g} (max {max(repeated)})" if repeated else "-",
        f"{statistics.median(back):.1f} (max {max(back):.1f})" if back else "-",
        sum(kill.orphans for kill in kills),
        "yes" if all(kill.identical for kill in kills) else "NO",
    ]


def _first_new_step(steps: list[StepNoted], at: float) -> tuple[StepNoted | None, StepNoted] | None:
    """Return the first step of a process that recorded none before ``at``, and the step before it."""
    old = {step.process for step in steps if step.at <= at}
    for index, step in enumerate(steps):
        if step.process not in old:
            return (steps[index - 1] if index else None), step
    return None


def _monotonic(path: Path) -> float:
    return path.stat().st_mtime - time.time() + time.monotonic()

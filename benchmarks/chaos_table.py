"""What became of the kills of `chaos.py`: the steps taken again, the time until work went on, and the table."""

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
_HEADER = ["fault", "moment", "kills", "recovered", "steps again", "seconds", "orphans", "byte-identical"]


@dataclass
class Kill:
    """A fault that came."""

    fault: str
    moment: str
    """What the process did that it was aimed at."""
    fold: int | None
    """Which it trained; None: it was the command."""
    at: float
    """By the machine's monotonic clock."""
    code: int | None = None
    """With which the command ended that was asked to."""
    orphans: int = 0
    again: list[int] = field(default_factory=list)
    """Steps that its folds took again."""
    seconds: float | None = None
    """Until the fold's next step, or until its result where there was none; None: never."""
    identical: bool = False
    """Whether its run ended as it should."""

    def __str__(self) -> str:
        return self.fault if self.code is None else f"{self.fault}, exit code {self.code}"


def fate(kill: Kill, trace: Path, run: Path) -> None:
    """Find out what became of a kill, from the steps that processes noted and from what the finished run holds."""
    mine = f"fold-{kill.fold}" if kill.fault in ("rank", "node") else "fold-*"
    went_on = {}
    for file in trace.glob(mine):
        if found := _next(steps_noted(file), kill.at):
            before, after = found
            kill.again.append(before.number + 1 - after.number if before else 0)
            went_on[file.name] = after.at - kill.at
    results = [run / f"fold-{kill.fold}" / "predictions.parquet", run / "summary.json"]
    ends = [_monotonic(path) - kill.at for path in results if path.is_file() and _monotonic(path) > kill.at]
    aimed = went_on.get(f"fold-{kill.fold}") if kill.fold is not None else min(went_on.values(), default=None)
    kill.seconds = aimed if aimed is not None else min(ends, default=None)


def tabulate(kills: list[Kill]) -> None:
    """Show the kills by fault and moment."""

    def place(kill: Kill) -> tuple[str, int]:
        return str(kill), _MOMENTS.index(kill.moment)

    rows = [_row(list(group)) for _, group in groupby(sorted(kills, key=place), key=place)]
    console.table(
        "Faults, the moments at which they came, and what became of them", _HEADER, [*rows, _row(kills, "all")]
    )


def _row(kills: list[Kill], name: str | None = None) -> list[object]:
    back = [kill.seconds for kill in kills if kill.seconds is not None]
    again = [steps for kill in kills for steps in kill.again]
    return [
        name or str(kills[0]),
        "" if name else kills[0].moment,
        len(kills),
        len(back),
        f"{statistics.median(again):g} (max {max(again)})" if again else "-",
        f"{statistics.median(back):.1f} (max {max(back):.1f})" if back else "-",
        sum(kill.orphans for kill in kills),
        "yes" if all(kill.identical for kill in kills) else "NO",
    ]


def _next(steps: list[StepNoted], at: float) -> tuple[StepNoted | None, StepNoted] | None:
    """The first step of a process that had noted none by then, and the step before it."""
    old = {step.process for step in steps if step.at <= at}
    for index, step in enumerate(steps):
        if step.process not in old:
            return (steps[index - 1] if index else None), step
    return None


def _monotonic(path: Path) -> float:
    return path.stat().st_mtime - time.time() + time.monotonic()

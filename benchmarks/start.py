"""How surely and how fast does a training start, go on to the next fold, and recover, on an idle and on a busy machine?

    python benchmarks/start.py --starts 3 --load 0
    python benchmarks/start.py --starts 10 --load 8
    python benchmarks/start.py --programs launch.py OTHER_CHECKOUT/launch.py

Starts a small run of three folds on the demo's images again and again, each program in turn, beside ``load`` processes
that compute all the time. A rank of fold 0 is killed by SIGKILL at its sixth step. Prints medians, in seconds:

    first line   from the command to its first line of output
    first step   from the command to the first step of a training
    CPU          of all processes of the command until then
    next fold    from the end of the first fold that ends (its predictions are written) to the first step of fold 2
    recovery     from the kill to the next step of fold 0

The run is stopped when all are known. ``--ranks 2`` needs Ray; one CPU rank can do without. Where the folds run one
after another, one of the first two ends before fold 2 starts: also with ``--ranks 2``.

Cost: a minute per start on an idle machine, many on a busy one.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import subprocess  # nosec B404  # for the program itself
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path

import psutil
import tyro
from conditions import commit, machine, run_benchmark

from melanoma_dist import console

_FLAGS = (
    *("--data", "demo", "--gpus", "0", "--backbone", "test_resnet", "--weights", "none", "--image-size", "32"),
    *("--labels", "isic2018", "--folds", "3", "--epochs", "2", "--checkpoint-every", "3"),
)
_KILL = {"at": "melanoma_dist.train.step:TrainStep.step", "call": 6, "do": "kill", "fold": 0}
_POLL_S = 0.05


@dataclass(frozen=True)
class Settings:
    """What to start, and beside what."""

    programs: tuple[Path, ...] = (Path(__file__).resolve().parents[1] / "launch.py",)
    """The launch.py of each checkout to compare."""
    starts: int = 10
    """Starts of each program."""
    load: int = 8
    """Processes that compute meanwhile; 0 for an idle machine."""
    ranks: int = 1
    """Ranks of a fold."""
    patience_s: float = 900.0
    """A start that takes longer failed."""


@dataclass(frozen=True)
class Start:
    """One start, in seconds; None: it did not get there."""

    output: float | None = None
    step: float | None = None
    cpu: float | None = None
    next_fold: float | None = None
    recovery: float | None = None


def main() -> None:
    """Measure and print."""
    settings = tyro.cli(Settings, description=__doc__)
    console.info(f"{machine()}; commit {commit()}; {settings.load} computing processes; {settings.ranks} ranks")
    starts: dict[Path, list[Start]] = {program: [] for program in settings.programs}
    with _computing(settings.load):
        for number in range(settings.starts):
            for program, earlier in starts.items():
                earlier.append(_start(program.resolve(), settings))
                console.info(f"{number + 1}: {program}: {earlier[-1]}; load {os.getloadavg()[0]:.0f}")
    header = ["program", "complete", "first line", "first step", "CPU", "next fold", "recovery", "slowest first step"]
    console.table("Starts (s)", header, [_row(program, each) for program, each in starts.items()])


@contextmanager
def _computing(count: int) -> Iterator[None]:
    workers = [multiprocessing.Process(target=_compute, daemon=True) for _ in range(count)]
    for worker in workers:
        worker.start()
    try:
        yield
    finally:
        for worker in workers:
            worker.kill()
            worker.join()


def _compute() -> None:
    while True:
        pass


def _start(program: Path, settings: Settings) -> Start:
    with tempfile.TemporaryDirectory() as folder:
        runs, trace, mark = Path(folder, "runs"), Path(folder, "trace"), Path(folder, "killed")
        trace.mkdir()
        flags = (*_FLAGS, "--ranks-per-unit", str(settings.ranks), "--runs", str(runs), "--name", "start")
        path = os.pathsep.join([str(program.parent / "tests" / "chaos" / "sabotage"), str(program.parent)])
        chaos = {"CHAOS_TRACE": str(trace), "CHAOS_FAULTS": json.dumps([{**_KILL, "mark": str(mark)}])}
        begin = time.monotonic()
        output = Path(folder, "output")
        with output.open("wb") as log:
            process = subprocess.Popen(  # noqa: S603  # nosec B603  # the program itself
                [sys.executable, str(program), *flags],
                stdout=log, stderr=log, cwd=program.parent,
                env={**os.environ, **chaos, "PYTHONUNBUFFERED": "1", "PYTHONPATH": path},
            )  # fmt: skip
        try:
            return _watch(process, begin, output, _Traces(runs / "start", trace / "start", mark), settings.patience_s)
        finally:
            process.terminate()
            process.wait()


@dataclass(frozen=True)
class _Traces:
    """Where a run leaves what is measured. Moments by the monotonic clock; None: not yet."""

    run: Path
    steps: Path
    killed: Path

    def steps_of(self, fold: int) -> list[tuple[str, float]]:
        """Process and moment of each step of a fold."""
        with suppress(OSError):
            lines = (self.steps / f"fold-{fold}").read_text().splitlines()
            return [(parts[0], float(parts[2])) for line in lines if len(parts := line.split()) == 3]
        return []

    def first_step(self) -> float | None:
        """The first step of any fold."""
        return min((at for fold in range(3) for _, at in self.steps_of(fold)), default=None)

    def next_fold(self) -> float | None:
        """Seconds from the end of the first fold that ended to the first step of fold 2."""
        ends = [_moment(self.run / f"fold-{fold}" / "predictions.parquet") for fold in (0, 1)]
        end, steps = min((end for end in ends if end is not None), default=None), self.steps_of(2)
        return steps[0][1] - end if steps and end is not None else None

    def recovery(self) -> float | None:
        """Seconds from the kill of the rank of fold 0 to the next step of this fold."""
        kill, steps = _moment(self.killed), self.steps_of(0)
        after = [at for process, at in steps if process != steps[0][0]]
        return after[0] - kill if after and kill is not None else None


def _moment(file: Path) -> float | None:
    with suppress(OSError):
        return file.stat().st_mtime - time.time() + time.monotonic()
    return None


def _watch(process: subprocess.Popen[bytes], begin: float, log: Path, traces: _Traces, patience_s: float) -> Start:
    output = step = cpu = following = recovery = None
    while time.monotonic() - begin < patience_s and (following is None or recovery is None):
        if output is None and log.stat().st_size:
            output = time.monotonic() - begin
        if step is None and (moment := traces.first_step()) is not None:
            step, cpu = moment - begin, _cpu_seconds(process.pid)
        following, recovery = traces.next_fold(), traces.recovery()
        if process.poll() is not None:
            break
        time.sleep(_POLL_S)
    return Start(output, step, cpu, following, recovery)


def _cpu_seconds(number: int) -> float:
    """CPU-seconds of a process and of all that it started and that still live."""
    root, total = psutil.Process(number), 0.0
    for each in (root, *root.children(recursive=True)):
        with suppress(psutil.Error):
            times = each.cpu_times()
            total += times.user + times.system
    return total


def _row(program: Path, starts: list[Start]) -> list[str]:
    columns = {item.name: [getattr(start, item.name) for start in starts] for item in fields(Start)}
    known = {name: [value for value in values if value is not None] for name, values in columns.items()}
    complete = sum(None not in vars(start).values() for start in starts)
    slowest = f"{max(known['step']):.0f}" if known["step"] else "-"
    return [str(program), f"{complete} of {len(starts)}", *map(_median, known.values()), slowest]


def _median(values: list[float]) -> str:
    return f"{statistics.median(values):.1f}" if values else "-"


if __name__ == "__main__":
    run_benchmark(main)

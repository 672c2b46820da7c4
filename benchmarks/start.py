"""How surely and how fast does a training start, on an idle and on a busy machine?

    python benchmarks/start.py --starts 10 --load 8
    python benchmarks/start.py --programs launch.py OTHER_CHECKOUT/launch.py

Starts a small run on the demo's images again and again, each program in turn, beside ``load`` processes that compute
all the time. Prints how many starts reached the end of the first epoch, and the median seconds to the first line of
output and to that end. Each run is stopped there. ``--ranks 2`` needs Ray; one CPU rank can do without.

Cost: a quarter of a minute per start on an idle machine, minutes on a busy one.
"""

from __future__ import annotations

import multiprocessing
import os
import statistics
import subprocess  # nosec B404  # for the program itself
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import tyro
from conditions import commit, machine, run_benchmark

from melanoma_dist import console

_FLAGS = (
    *("--data", "demo", "--gpus", "0", "--backbone", "test_resnet", "--weights", "none", "--image-size", "32"),
    *("--labels", "isic2018", "--folds", "2", "--epochs", "20"),
)


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
    patience_s: float = 600.0
    """A start that takes longer failed."""


@dataclass(frozen=True)
class Start:
    """One start, in seconds from the command; None: it did not get there."""

    output: float | None
    epoch: float | None


def main() -> None:
    """Measure and print."""
    settings = tyro.cli(Settings, description=__doc__)
    console.info(f"{machine()}; commit {commit()}; {settings.load} computing processes; {settings.ranks} ranks")
    starts: dict[Path, list[Start]] = {program: [] for program in settings.programs}
    with _computing(settings.load):
        for number in range(settings.starts):
            for program, earlier in starts.items():
                earlier.append(_start(program, settings))
                console.info(f"{number + 1}: {program}: {earlier[-1]}; load {os.getloadavg()[0]:.0f}")
    rows = [_row(program, each) for program, each in starts.items()]
    console.table("Starts", ["program", "started", "first line (s)", "first epoch (s)", "slowest (s)"], rows)


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
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as runs:
        flags = (*_FLAGS, "--ranks-per-unit", str(settings.ranks), "--runs", runs, "--name", "start")
        process = subprocess.Popen(  # noqa: S603  # nosec B603  # the program itself
            [sys.executable, str(program.resolve()), *flags],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=program.resolve().parent,
            env={**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": str(program.resolve().parent)},
        )  # fmt: skip
        output = _seconds_to_output(process, begin)
        epoch = _seconds_to_epoch(Path(runs) / "start", process, begin, settings.patience_s)
        process.terminate()
        process.communicate()
    return Start(output, epoch)


def _seconds_to_output(process: subprocess.Popen[str], begin: float) -> float | None:
    assert process.stdout is not None  # noqa: S101  # nosec B101  # it is a pipe
    return time.monotonic() - begin if process.stdout.readline() else None


def _seconds_to_epoch(run: Path, process: subprocess.Popen[str], begin: float, patience_s: float) -> float | None:
    """Seconds until the first record of an epoch is on the disk: all versions write it to the same place."""
    while process.poll() is None and time.monotonic() - begin < patience_s:
        if any(path.stat().st_size for path in run.glob("fold-*/metrics.jsonl")):
            return time.monotonic() - begin
        time.sleep(0.1)
    return None


def _row(program: Path, starts: list[Start]) -> list[str]:
    outputs = [start.output for start in starts if start.output is not None]
    epochs = [start.epoch for start in starts if start.epoch is not None]
    slowest = f"{max(epochs):.0f}" if epochs else "-"
    return [str(program), f"{len(epochs)} of {len(starts)}", _median(outputs), _median(epochs), slowest]


def _median(values: list[float]) -> str:
    return f"{statistics.median(values):.1f}" if values else "-"


if __name__ == "__main__":
    run_benchmark(main)

"""Does a corrupt or hostile file crash the program, hang it, exhaust the memory or write outside its folder?

    python benchmarks/fuzz.py --minutes 10 [--parser NAME ...] [--jobs 2]

For each parser (``fuzzing/parsers``) a separate process reads corrupted copies of real files (``fuzzing/samples.py``),
one after the other, with at most 1 GiB of memory more than at its start. A finding is an exception that is not one of
the program's own, a crash, an input that takes 10 s of CPU time or 60 s in all, a changed file outside the folder, a
new process, or a connection. Each finding's input is kept in ``--findings`` with a description. The same ``--seed``
gives the same inputs. Exits with 1 if there was a finding.

Only ``trained-run``, ``hub-folder`` and the samples need DALI, and only ``sweep-journal`` needs Ray.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import shutil
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import tyro
from conditions import commit, machine, run_benchmark
from fuzzing.parsers import NAMES, module_of

from melanoma_dist import console
from melanoma_dist.errors import ConfigError

_CPU_LIMIT_S = 10.0  # CPU time of one input
_INPUT_LIMIT_S = 60.0  # wall time of one input, on a machine that others use too
_START_LIMIT_S = 120.0  # wall time until a process has started
_POLL_S = 0.2
_NO_LIMIT = 10**9
_LOW_MEMORY = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "2"}
"""Reserved but unused memory would count too, and grows with the number of cores."""


@dataclass(frozen=True)
class Settings:
    """Parsers and duration."""

    minutes: float = 10.0
    """Minutes per parser."""
    parser: tuple[str, ...] = NAMES
    """Parsers to fuzz; by default all."""
    jobs: int = 1
    """Number of parsers to fuzz at a time."""
    seed: int = 0
    """Seed of the inputs."""
    findings: Path = Path("fuzz-findings")
    """Folder for the inputs of findings; created if there are any."""
    samples: Path | None = None
    """Folder for the samples, reused if it exists; by default a temporary folder."""

    def __post_init__(self) -> None:
        if unknown := [name for name in self.parser if name not in NAMES]:
            raise ConfigError.of("parser", " ".join(unknown), f"must be one of {', '.join(NAMES)}")
        if not self.minutes > 0:
            raise ConfigError.of("minutes", self.minutes, "must be above 0")
        if self.jobs < 1:
            raise ConfigError.of("jobs", self.jobs, "must be 1 or more")


@dataclass
class Result:
    """The result of one parser."""

    name: str
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    findings: list[str] = field(default_factory=list)

    @property
    def row(self) -> tuple[object, ...]:
        """The row of the table."""
        return self.name, self.inputs, f"{self.seconds:.0f}", self.accepted, self.refused, len(self.findings)


def main() -> None:
    """Fuzz the parsers and print the table."""
    settings = tyro.cli(Settings, description=__doc__)
    results = asyncio.run(run(settings))
    print(f"{machine()}; commit {commit()}")
    for result in results:
        for finding in result.findings:
            console.info(finding)
    sys.exit(any(result.findings for result in results))


async def run(settings: Settings) -> list[Result]:
    """Fuzz the parsers, ``jobs`` at a time; show the table after each of them."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    os.environ |= _LOW_MEMORY
    context = multiprocessing.get_context("forkserver")  # so that every process starts with everything loaded
    context.set_forkserver_preload(["fuzzing.child", *{module_of(name) for name in settings.parser}])
    free, results = asyncio.Semaphore(settings.jobs), dict[str, Result]()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as work:
        samples = settings.samples or Path(work) / "samples"
        if not samples.is_dir():
            _create_samples(context, samples)

        async def in_turn(name: str) -> None:
            async with free:
                results[name] = await _fuzz(context, settings, name, samples, Path(work) / name)
            console.table(
                "Fuzzed inputs", ("parser", "inputs", "seconds", "accepted", "refused", "findings"),
                [results[name].row for name in settings.parser if name in results],
            )  # fmt: skip

        async with asyncio.TaskGroup() as parsers:
            for name in settings.parser:
                parsers.create_task(in_turn(name))
    return [results[name] for name in settings.parser]


def _create_samples(context: Any, samples: Path) -> None:
    samples.mkdir(parents=True)
    maker = context.Process(target=_sample_process, args=(samples,))
    maker.start()
    maker.join()
    if maker.exitcode:
        raise RuntimeError(f"the samples could not be created (exit code {maker.exitcode})")


def _sample_process(folder: Path) -> None:
    from fuzzing.samples import make_samples

    make_samples(folder)


def _fuzz_process(*arguments: Any) -> None:
    from fuzzing.child import fuzz

    fuzz(*arguments)


async def _fuzz(context: Any, settings: Settings, name: str, samples: Path, work: Path) -> Result:
    """Fuzz one parser. After a finding, a new process continues with the next input."""
    result, end, attempt = Result(name), time.monotonic() + 60 * settings.minutes, 0
    start = time.monotonic()
    while (left := end - time.monotonic()) > 0 or attempt == 0:
        box = work / str(attempt)
        box.mkdir(parents=True)
        arguments = (name, samples, box, settings.seed, result.inputs, left, _NO_LIMIT)
        process = context.Process(target=_fuzz_process, args=arguments, daemon=True)
        process.start()
        hung = await _watch(process, box)
        if not _state(box):
            result.findings.append(f"{name}: its process did not start (exit code {process.exitcode})")
            break
        _record(result, box, process.exitcode, hung, settings)
        shutil.rmtree(box)
        attempt += 1
    result.seconds = time.monotonic() - start
    return result


async def _watch(process: Any, box: Path) -> bool:
    """Wait for a process. Return whether it was killed because one input took too long."""
    start = time.time()
    while process.is_alive():
        await asyncio.sleep(_POLL_S)
        state = _state(box)
        since, limit = (state["since"], _INPUT_LIMIT_S) if "since" in state else (start, _START_LIMIT_S)
        busy = "since" in state and _cpu_s(process.pid) - state["processor"] > _CPU_LIMIT_S
        if process.is_alive() and not state.get("done") and (busy or time.time() - since > limit):
            process.kill()
            process.join()
            return True
    return False


def _cpu_s(pid: int) -> float:
    """Return the CPU time of a process; 0 if it has ended."""
    try:
        spent = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(spent.user + spent.system)


def _state(box: Path) -> dict[str, Any]:
    path = box / "state.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _record(result: Result, box: Path, code: int | None, hung: bool, settings: Settings) -> None:
    state = _state(box)
    result.inputs, result.accepted = state["next"], result.accepted + state["accepted"]
    result.refused += state["refused"]
    description = state["finding"] or ("took too long" if hung else f"ended its process ({code})")
    if code == 0 and not state["finding"]:
        return
    if not state["finding"]:
        result.inputs += 1  # the input that killed it
    folder = settings.findings / f"{result.name}-{settings.seed}-{result.inputs - 1}"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(box / "input", folder / Path(state["file"]).name)
    (folder / "finding.txt").write_text(f"{state['file']}\n{description}\n")
    result.findings.append(f"{folder}: {description.strip().splitlines()[-1][:200]}")


if __name__ == "__main__":
    run_benchmark(main)

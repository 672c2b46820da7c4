"""Does any damaged or hostile file crash the program, hang it, fill the memory or leave its folder?

    python benchmarks/fuzz.py --minutes 10 [--parser NAME ...] [--jobs 2]

For each parser (``fuzzing/parsers``) a process of its own reads damaged copies of real files
(``fuzzing/samples.py``), one after the other, with 1 GiB of memory more than it had when it began. A finding is an
exception that is none of the program's own, a crash, an input that takes 10 s of the processor or 60 s, a file that is
changed outside the folder, a process that is started, a connection. Its input is kept in ``--findings`` with what
happened. The same ``--seed`` gives the same inputs. Ends with exit code 1 if there was a finding.

Only ``judged-run`` and the making of samples need DALI, and only ``sweep-journal`` needs Ray.
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
from conditions import commit, ended, machine
from fuzzing.parsers import NAMES, module_of

from melanoma_dist import console
from melanoma_dist.errors import ConfigError

_PATIENCE_S = 10.0  # of the processor, for one input
_LONGEST_S = 60.0  # for one input, on a machine that others use too
_BEGIN_S = 120.0  # for a process to begin
_LOOK_S = 0.2  # between two looks at a process
_MANY = 10**9
_FRUGAL = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "2", "OMP_NUM_THREADS": "2"}
"""What is reserved and not used would count as memory, the more the more cores there are."""


@dataclass(frozen=True)
class Settings:
    """What is damaged, and for how long."""

    minutes: float = 10.0
    """Minutes for each parser."""
    parser: tuple[str, ...] = NAMES
    """Parsers; all where none is named."""
    jobs: int = 1
    """Parsers at a time."""
    seed: int = 0
    """Of the damage."""
    findings: Path = Path("fuzz-findings")
    """Folder for the inputs that were found; made if there are any."""
    samples: Path | None = None
    """Folder with samples of an earlier command; made anew in a temporary folder where not given."""

    def __post_init__(self) -> None:
        if unknown := [name for name in self.parser if name not in NAMES]:
            raise ConfigError.of("parser", " ".join(unknown), f"must be among {', '.join(NAMES)}")
        if not self.minutes > 0:
            raise ConfigError.of("minutes", self.minutes, "must be above 0")
        if self.jobs < 1:
            raise ConfigError.of("jobs", self.jobs, "must be 1 or more")


@dataclass
class Result:
    """What came of a parser."""

    name: str
    inputs: int = 0
    accepted: int = 0
    refused: int = 0
    seconds: float = 0.0
    findings: list[str] = field(default_factory=list)

    @property
    def row(self) -> tuple[object, ...]:
        """For the table."""
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
    """Fuzz the parsers that are asked for, ``jobs`` at a time; the table is shown whenever one is done."""
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    os.environ |= _FRUGAL
    context = multiprocessing.get_context("forkserver")  # so that every process begins with everything loaded
    context.set_forkserver_preload(["fuzzing.child", *{module_of(name) for name in settings.parser}])
    free, results = asyncio.Semaphore(settings.jobs), dict[str, Result]()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as work:
        samples = settings.samples or Path(work) / "samples"
        if not samples.is_dir():
            _make(context, samples)

        async def in_turn(name: str) -> None:
            async with free:
                results[name] = await _fuzz(context, settings, name, samples, Path(work) / name)
            console.table(
                "Damaged inputs", ("parser", "inputs", "seconds", "accepted", "refused", "findings"),
                [results[name].row for name in settings.parser if name in results],
            )  # fmt: skip

        async with asyncio.TaskGroup() as parsers:
            for name in settings.parser:
                parsers.create_task(in_turn(name))
    return [results[name] for name in settings.parser]


def _make(context: Any, samples: Path) -> None:
    samples.mkdir(parents=True)
    maker = context.Process(target=_samples, args=(samples,))
    maker.start()
    maker.join()
    if maker.exitcode:
        raise RuntimeError(f"the samples could not be made (exit code {maker.exitcode})")


def _samples(folder: Path) -> None:
    from fuzzing.samples import make_samples

    make_samples(folder)


def _child(*arguments: Any) -> None:
    from fuzzing.child import fuzz

    fuzz(*arguments)


async def _fuzz(context: Any, settings: Settings, name: str, samples: Path, work: Path) -> Result:
    """One parser: a process after the other, each going on behind the finding that ended the one before."""
    result, end, attempt = Result(name), time.monotonic() + 60 * settings.minutes, 0
    begun = time.monotonic()
    while (left := end - time.monotonic()) > 0 or attempt == 0:
        box = work / str(attempt)
        box.mkdir(parents=True)
        arguments = (name, samples, box, settings.seed, result.inputs, left, _MANY)
        process = context.Process(target=_child, args=arguments, daemon=True)
        process.start()
        hung = await _watch(process, box)
        if not _state(box):
            result.findings.append(f"{name}: its process did not begin (exit code {process.exitcode})")
            break
        _take(result, box, process.exitcode, hung, settings)
        shutil.rmtree(box)
        attempt += 1
    result.seconds = time.monotonic() - begun
    return result


async def _watch(process: Any, box: Path) -> bool:
    """Wait for a process; end it, and say so, where one input takes too long."""
    begun = time.time()
    while process.is_alive():
        await asyncio.sleep(_LOOK_S)
        state = _state(box)
        since, patience = (state["since"], _LONGEST_S) if "since" in state else (begun, _BEGIN_S)
        busy = "since" in state and _processor_s(process.pid) - state["processor"] > _PATIENCE_S
        if process.is_alive() and not state.get("done") and (busy or time.time() - since > patience):
            process.kill()
            process.join()
            return True
    return False


def _processor_s(pid: int) -> float:
    """What a process has computed; nothing where it has ended."""
    try:
        spent = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(spent.user + spent.system)


def _state(box: Path) -> dict[str, Any]:
    path = box / "state.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _take(result: Result, box: Path, code: int | None, hung: bool, settings: Settings) -> None:
    state = _state(box)
    result.inputs, result.accepted = state["next"], result.accepted + state["accepted"]
    result.refused += state["refused"]
    what = state["finding"] or ("took too long" if hung else f"ended its process ({code})")
    if code == 0 and not state["finding"]:
        return
    if not state["finding"]:
        result.inputs += 1  # the one that it died of
    kept = settings.findings / f"{result.name}-{settings.seed}-{result.inputs - 1}"
    kept.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(box / "input", kept / Path(state["file"]).name)
    (kept / "finding.txt").write_text(f"{state['file']}\n{what}\n")
    result.findings.append(f"{kept}: {what.strip().splitlines()[-1][:200]}")


if __name__ == "__main__":
    ended(main)

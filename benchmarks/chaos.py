"""Does a training that is killed at random, again and again, end with the results of an undisturbed one?

    MELANOMA_DIST_ISIC=ISIC python benchmarks/chaos.py --kills 50
    python benchmarks/chaos.py --minutes 20 --data DATA

Prepares 36 real images of ISIC 2017 (or takes DATA) and trains two folds of a small backbone on them once, undisturbed.
Then it disturbs the same run and repeats the command until the run is finished; then another run, until there were
enough kills. Three of four runs train on a Ray cluster of nodes that can be lost, the fourth on a private cluster. A
kill hits a rank, a node with everything on it, or the command. SIGTERM, a request to stop, is a fault but no kill. Each
fault waits for a random moment: a start, a step, a validation, a checkpoint or the end.

Each finished run is compared with the undisturbed one byte by byte (`tests/chaos/outcome.py`). Exits with 1 and keeps
the folder if a run differs, repeated more than a checkpoint interval, or left a file or a process behind.

Cost: half a minute per kill on two cores. Shows whether results depend on interruptions.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
import tyro
from chaos_nodes import Nodes
from chaos_table import Kill, show_kills, trace_recovery
from conditions import commit, machine, run_benchmark

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from melanoma_dist import console  # noqa: E402
from melanoma_dist.data.prepare import Request, prepare  # noqa: E402
from melanoma_dist.errors import ConfigError, MelanomaDistError  # noqa: E402
from tests.chaos.outcome import differences, leftovers, repeated_steps  # noqa: E402
from tests.chaos.processes import MARK, alive_after, runs, title, working  # noqa: E402

_FAULTS = {"rank": 5.0, "node": 2.0, "command": 1.5, "SIGTERM": 0.5}  # fault: relative frequency
_MOMENTS = ("start", "step", "validation", "checkpoint")
_PER_RUN, _AT_END = 7, 3  # faults per run: at these moments, then at its end
_EVERY = 2  # steps between checkpoints
_DELAY_S = 0.05  # longest delay within a moment
_START_DELAY_S = 4.0  # the same at the start of the command
_AIM_S = 10.0  # how long to wait, while something trains, until a process reaches the moment
_SLOW = b"Ray did not start on this machine"  # within 30 s: the machine is overloaded
_CODES = (-signal.SIGKILL, -signal.SIGTERM, 75, 143)


@dataclass(frozen=True)
class Settings:
    """Duration and data."""

    kills: int = 50
    """Start runs until there were this many kills."""
    minutes: float = 120.0
    """Stop after this time; the last run then finishes undisturbed."""
    seed: int = 0
    """Seed of the moments and kinds of faults."""
    data: str | None = None
    """Prepared data set; by default 36 images of $MELANOMA_DIST_ISIC."""
    labels: str = "isic2017"
    """Label set of the data."""
    epochs: int = 40
    """Epochs per run."""


class Chaos:
    """One undisturbed run, and disturbed runs to compare with it."""

    def __init__(self, settings: Settings, place: Path, data: str) -> None:
        self._place, self._random = place, random.Random(settings.seed)  # noqa: S311  # nosec B311  # repeatable
        self._flags = [
            *("--data", data, "--labels", settings.labels, "--gpus", "0", "--backbone", "test_resnet"),
            *("--weights", "none", "--image-size", "64", "--augment", "light", "--lr", "1e-3", "--folds", "2"),
            *("--batch-size", "4", "--epochs", str(settings.epochs), "--patience", str(settings.epochs)),
            *("--checkpoint-every", str(_EVERY), "--max-restarts", "1000", "--max-preemptions", "1000"),
            *("--runs", str(place / "runs"), "--keep-checkpoints"),
        ]
        self.until = time.monotonic() + 60 * settings.minutes
        self._hits: Counter[tuple[str, str]] = Counter()
        self.kills: list[Kill] = []
        self.trace = place / "trace"
        self.trace.mkdir()
        self.nodes = Nodes(place, self._environment("nodes"))

    def train_reference(self) -> None:
        """Train the undisturbed run."""
        self._train("whole", on_nodes=True, plan=[])

    def disturb(self, number: int) -> list[str]:
        """Train one run under faults until it is finished; return what is wrong with it."""
        name = f"killed-{number}"
        before = len(self.kills)
        on_nodes = number % 4 != 3
        self._train(name, on_nodes, [*self._random.choices(_MOMENTS, k=_PER_RUN), *["end"] * _AT_END])
        kills = self.kills[before:]
        wrong = self._check(name, on_nodes)
        for kill in kills:
            trace_recovery(kill, self.trace / name, self._place / "runs" / name)
            kill.identical = not wrong
        console.info(f"{name}: {', '.join(f'{kill} in {kill.moment}' for kill in kills)}; wrong: {wrong or 'nothing'}")
        return wrong

    def draw_fault(self, moment: str, nodes: bool) -> str:
        """Draw a fault for a moment; rare combinations are more likely."""
        faults = [fault for fault in _FAULTS if nodes or fault != "node"]
        weights = [_FAULTS[fault] / (1 + self._hits[fault, moment]) for fault in faults]
        return self._random.choices(faults, weights)[0]

    def random_time(self, seconds: float) -> float:
        """Draw a time."""
        return self._random.uniform(0.0, seconds)

    def record_kill(self, kill: Kill) -> None:
        """Record a fault."""
        self._hits[kill.fault, kill.moment] += 1
        self.kills.append(kill)
        console.info(
            f"{len(self.kills)}: {kill}, {kill.moment}" + (f", {kill.orphans} orphans" if kill.orphans else "")
        )

    def running(self, name: str, on_nodes: bool) -> list[psutil.Process]:
        """List the processes of a run's command, and the busy workers of the cluster."""
        processes = working(self._place / name)
        workers = working(self._place / "nodes") if on_nodes else []
        return processes + [each for each in workers if title(each).startswith("ray::") and "IDLE" not in title(each)]

    def _train(self, name: str, on_nodes: bool, plan: list[str]) -> None:
        command = [sys.executable, str(ROOT / "launch.py"), *self._flags, "--name", name]
        environment = self._environment(name)
        if on_nodes:
            command += ["--address", self.nodes.address]
            environment |= self.nodes.secret
        _Run(name, command, environment, on_nodes, plan, self).finish(self._place / f"{name}.log")

    def _check(self, name: str, on_nodes: bool) -> list[str]:
        repeated = max(repeated_steps(self.trace / name), default=0)
        reference, run = (self._place / "runs" / each for each in ("whole", name))
        wrong = [f"different: {each}" for each in differences(reference, run)]
        wrong += [f"left over: {each}" for each in leftovers(run)]
        wrong += [f"left running: {title(each)}" for each in alive_after(40, self.running(name, on_nodes))]
        return wrong + ([f"{repeated} steps repeated"] if repeated > _EVERY else [])

    def _environment(self, name: str) -> dict[str, str]:
        path = os.pathsep.join([str(ROOT / "tests" / "chaos" / "sabotage"), os.environ.get("PYTHONPATH", "")])
        chaos = {"PYTHONPATH": path, "CHAOS_TRACE": str(self.trace), MARK: str(self._place / name)}
        return {**os.environ, **chaos}


@dataclass
class _Run:
    """One run: repeats its command until it is finished, with a fault at each moment of the plan."""

    name: str
    command: list[str]
    environment: dict[str, str]
    on_nodes: bool
    plan: list[str]
    chaos: Chaos

    def finish(self, output: Path) -> None:
        with output.open("ab") as log:
            while True:
                begin = output.stat().st_size
                process = psutil.Popen(self.command, env=self.environment, stdout=log, stderr=log)
                while self.plan and process.poll() is None and time.monotonic() < self.chaos.until:
                    if self._inject_fault(process, self.plan[0]):
                        self.plan.pop(0)
                    elif self.plan[0] == "start":  # everything has started
                        self.plan[0] = "step"
                if (code := process.wait()) == 0:
                    return
                if code not in _CODES and _SLOW not in output.read_bytes()[begin:]:
                    raise MelanomaDistError(f"the command exited with code {code}: see {output}")

    def _inject_fault(self, process: psutil.Popen, moment: str) -> bool:
        """Wait for a process at the moment and hit it with a fault. Return whether that happened."""
        fault = self.chaos.draw_fault(moment, self.on_nodes)
        self._pause(process, self.chaos.random_time(2.0 if moment != "start" else 0.2))
        pid = self._aim(process, fault in ("rank", "node"), moment)
        if pid is None:
            return False
        kill = Kill(fault, *self._phase(pid), time.monotonic())
        if fault in ("rank", "node"):
            try:
                self._kill(psutil.Process(pid), kill)
            except psutil.NoSuchProcess:  # it has just ended
                return False
        elif not self._stop_command(process, kill):
            return False
        self.chaos.record_kill(kill)
        return True

    def _aim(self, process: psutil.Popen, aims_at_rank: bool, moment: str) -> int | None:
        """Return a process at the moment, after a random delay within it; None if no process reaches it."""
        delay = _START_DELAY_S if moment == "start" and not aims_at_rank else _DELAY_S
        limit = time.monotonic() + _AIM_S
        while process.poll() is None and time.monotonic() < limit:
            pids = [int(file.name.partition("-")[2]) for file in self.chaos.trace.glob("phase-*")]
            if not any(self._is_at(pid, trained) for pid in pids for trained in _MOMENTS[1:]):
                limit = time.monotonic() + _AIM_S
            for pid in pids:
                if self._is_at(pid, moment) and not (aims_at_rank and pid == process.pid):
                    self._pause(process, self.chaos.random_time(delay))
                    if self._is_at(pid, moment):
                        return pid
            time.sleep(0.002)
        return None

    def _is_at(self, pid: int, moment: str) -> bool:
        return self._phase(pid)[0] == moment and runs(pid)

    def _phase(self, pid: int) -> tuple[str, int | None]:
        with suppress(FileNotFoundError, ValueError):
            phase, fold = (self.chaos.trace / f"phase-{pid}").read_text().split()
            return phase, None if fold == "None" else int(fold)
        return "between", None

    def _kill(self, rank: psutil.Process, kill: Kill) -> None:
        family = [rank, *rank.children(recursive=True)]
        if kill.fault == "rank":
            rank.kill()
        else:
            self.chaos.nodes.lose(rank)
        kill.orphans = len(alive_after(40, family))
        kill.moment, kill.fold = self._phase(rank.pid)  # when it died; it may have moved on since the aim

    def _stop_command(self, process: psutil.Popen, kill: Kill) -> bool:
        process.send_signal(signal.SIGKILL if kill.fault == "command" else signal.SIGTERM)
        if (code := process.wait(180)) == 0:
            return False  # it finished before the signal arrived
        kill.code = None if kill.fault == "command" else code
        kill.orphans = len(alive_after(40, self.chaos.running(self.name, self.on_nodes)))
        return True

    def _pause(self, process: psutil.Popen, seconds: float) -> None:
        limit = time.monotonic() + seconds
        while time.monotonic() < limit and process.poll() is None:
            time.sleep(0.001)


def _prepare_real_images(place: Path) -> str:
    source = os.environ.get("MELANOMA_DIST_ISIC")
    if not source:
        raise ConfigError("--data: name a prepared data set, or set MELANOMA_DIST_ISIC to a folder of ISIC images.")
    raw, source_year = place / "raw" / "2017", Path(source) / "2017"
    table, images = "ISIC-2017_Training_Part3_GroundTruth.csv", "ISIC-2017_Training_Data"
    (raw / images).mkdir(parents=True)
    subset = pd.read_csv(source_year / table).groupby(["melanoma", "seborrheic_keratosis"]).head(12)
    subset.to_csv(raw / table, index=False)
    for name in subset["image_id"]:
        (raw / images / f"{name}.jpg").write_bytes((source_year / images / f"{name}.jpg").read_bytes())
    prepare(Request(raw.parent, ("2017",)), place / "data")
    return str(place / "data")


def main() -> None:
    """Train once, then kill and compare until there were enough kills."""
    settings = tyro.cli(Settings, description=__doc__)
    place = Path(tempfile.mkdtemp(prefix="chaos-"))
    chaos = Chaos(settings, place, settings.data or _prepare_real_images(place))
    count, bad = 0, 0
    with chaos.nodes:
        chaos.train_reference()
        while sum(kill.fault != "SIGTERM" for kill in chaos.kills) < settings.kills and time.monotonic() < chaos.until:
            bad += bool(chaos.disturb(count))
            count += 1
    show_kills(chaos.kills)
    console.info(f"{len(chaos.kills)} faults in {count} runs, {bad} with a wrong result; {machine()}; {commit()}")
    if bad or any(kill.orphans for kill in chaos.kills):
        raise MelanomaDistError(f"a run differs from the undisturbed one, or left something behind: see {place}")
    shutil.rmtree(place)


if __name__ == "__main__":
    run_benchmark(main)

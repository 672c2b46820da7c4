"""Does a training that is killed at random, again and again, end as one that never was?

    MELANOMA_DIST_ISIC=ISIC python benchmarks/chaos.py --kills 50
    python benchmarks/chaos.py --minutes 20 --data DATA

36 real images of ISIC 2017 are prepared (or DATA is taken), and two folds of a small backbone trained on them once,
undisturbed. Then the same run is disturbed and its command given again until it is finished; and again, as another run,
until there were enough kills. Three runs of four are trained on a Ray cluster of nodes that can be lost, the fourth on
a private one. A kill takes a rank, a node with everything on it, or the command; SIGTERM, which asks for an end, is
none. Each waits at random for a process at its start, in a step, in a validation, in a checkpoint or at its end.

Each finished run is compared with the undisturbed one byte by byte (`tests/chaos/outcome.py`). Exit code 1 where one
differs, lost more than a checkpoint interval, or left a file or a process behind; its folder is kept then.

Cost: half a minute a kill on two cores. It shows whether results depend on what happened to their processes.
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
from chaos_table import Kill, fate, tabulate
from conditions import commit, ended, machine

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from melanoma_dist import console  # noqa: E402
from melanoma_dist.data.prepare import Request, prepare  # noqa: E402
from melanoma_dist.errors import ConfigError, MelanomaDistError  # noqa: E402
from tests.chaos.outcome import differences, leftovers, repeated_steps  # noqa: E402
from tests.chaos.processes import MARK, alive_after, runs, title, working  # noqa: E402

_FAULTS = {"rank": 5.0, "node": 2.0, "command": 1.5, "SIGTERM": 0.5}  # and how often
_MOMENTS = ("start", "step", "validation", "checkpoint")
_PER_RUN, _AT_END = 7, 3  # faults of a run at these moments, and then at its end
_EVERY = 2  # steps between checkpoints
_LATER_S = 0.05  # at most within a moment
_LATER_IN_START_S = 4.0  # of the command
_AIM_S = 10.0  # of training, for a process to come to the moment; then another one is aimed at
_SLOW = b"Ray did not start on this machine"  # within 30 s: a machine that does too much else
_CODES = (-signal.SIGKILL, -signal.SIGTERM, 75, 143)


@dataclass(frozen=True)
class Settings:
    """How long, and on what."""

    kills: int = 50
    """Runs are begun until there were so many kills,"""
    minutes: float = 120.0
    """or this time is up; the last run then goes to its end in peace."""
    seed: int = 0
    """Of the moments and kinds of faults."""
    data: str | None = None
    """Prepared data set; 36 images of $MELANOMA_DIST_ISIC where not given."""
    labels: str = "isic2017"
    """Labels that the data has."""
    epochs: int = 40
    """Epochs of a run."""


class Soak:
    """One undisturbed run, and disturbed ones beside it."""

    def __init__(self, settings: Settings, place: Path, data: str) -> None:
        self._place, self._random = place, random.Random(settings.seed)  # noqa: S311  # nosec B311  # repeatable
        self._flags = [
            *("--data", data, "--labels", settings.labels, "--gpus", "0", "--backbone", "test_resnet"),
            *("--weights", "none", "--image-size", "64", "--augment", "light", "--lr", "1e-3", "--folds", "2"),
            *("--batch-size", "4", "--epochs", str(settings.epochs), "--patience", str(settings.epochs)),
            *("--checkpoint-every", str(_EVERY), "--max-restarts", "1000", "--max-preemptions", "1000"),
            *("--runs", str(place / "runs")),
        ]
        self.until = time.monotonic() + 60 * settings.minutes
        self._hits: Counter[tuple[str, str]] = Counter()
        self.kills: list[Kill] = []
        self.trace = place / "trace"
        self.trace.mkdir()
        self.nodes = Nodes(place, self._environment("nodes"))

    def whole(self) -> None:
        """The run that nothing disturbs."""
        self._train("whole", on_nodes=True, plan=[])

    def disturbed(self, number: int) -> list[str]:
        """One run under faults until it is finished; what is wrong with it then."""
        name = f"killed-{number}"
        before = len(self.kills)
        on_nodes = number % 4 != 3
        self._train(name, on_nodes, [*self._random.choices(_MOMENTS, k=_PER_RUN), *["end"] * _AT_END])
        kills = self.kills[before:]
        wrong = self._judged(name, on_nodes)
        for kill in kills:
            fate(kill, self.trace / name, self._place / "runs" / name)
            kill.identical = not wrong
        console.info(f"{name}: {', '.join(f'{kill} in {kill.moment}' for kill in kills)}; wrong: {wrong or 'nothing'}")
        return wrong

    def draw(self, moment: str, nodes: bool) -> str:
        """A fault for a moment: at random, rather one that did not come then yet."""
        faults = [fault for fault in _FAULTS if nodes or fault != "node"]
        weights = [_FAULTS[fault] / (1 + self._hits[fault, moment]) for fault in faults]
        return self._random.choices(faults, weights)[0]

    def within(self, seconds: float) -> float:
        """A random time."""
        return self._random.uniform(0.0, seconds)

    def hit(self, kill: Kill) -> None:
        """A fault came."""
        self._hits[kill.fault, kill.moment] += 1
        self.kills.append(kill)
        console.info(
            f"{len(self.kills)}: {kill}, {kill.moment}" + (f", {kill.orphans} orphans" if kill.orphans else "")
        )

    def running(self, name: str, on_nodes: bool) -> list[psutil.Process]:
        """The processes of a run's command, and of the cluster those that work for one."""
        mine = working(self._place / name)
        workers = working(self._place / "nodes") if on_nodes else []
        return mine + [each for each in workers if title(each).startswith("ray::") and "IDLE" not in title(each)]

    def _train(self, name: str, on_nodes: bool, plan: list[str]) -> None:
        command = [sys.executable, str(ROOT / "launch.py"), *self._flags, "--name", name]
        environment = self._environment(name)
        if on_nodes:
            command += ["--address", self.nodes.address]
            environment |= self.nodes.secret
        _Run(name, command, environment, on_nodes, plan, self).finish(self._place / f"{name}.log")

    def _judged(self, name: str, on_nodes: bool) -> list[str]:
        again = max(repeated_steps(self.trace / name), default=0)
        whole, run = (self._place / "runs" / each for each in ("whole", name))
        wrong = [f"different: {each}" for each in differences(whole, run)]
        wrong += [f"left over: {each}" for each in leftovers(run)]
        wrong += [f"left running: {title(each)}" for each in alive_after(40, self.running(name, on_nodes))]
        return wrong + ([f"{again} steps taken again"] if again > _EVERY else [])

    def _environment(self, name: str) -> dict[str, str]:
        path = os.pathsep.join([str(ROOT / "tests" / "chaos" / "sabotage"), os.environ.get("PYTHONPATH", "")])
        chaos = {"PYTHONPATH": path, "CHAOS_TRACE": str(self.trace), MARK: str(self._place / name)}
        return {**os.environ, **chaos}


@dataclass
class _Run:
    """One run, its command given until it is finished, with a fault at each moment of the plan."""

    name: str
    command: list[str]
    environment: dict[str, str]
    on_nodes: bool
    plan: list[str]
    soak: Soak

    def finish(self, output: Path) -> None:
        with output.open("ab") as log:
            while True:
                begin = output.stat().st_size
                process = psutil.Popen(self.command, env=self.environment, stdout=log, stderr=log)
                while self.plan and process.poll() is None and time.monotonic() < self.soak.until:
                    if self._strike(process, self.plan[0]):
                        self.plan.pop(0)
                    elif self.plan[0] == "start":  # nothing starts any more
                        self.plan[0] = "step"
                if (code := process.wait()) == 0:
                    return
                if code not in _CODES and _SLOW not in output.read_bytes()[begin:]:
                    raise MelanomaDistError(f"the command ended with code {code}: see {output}")

    def _strike(self, process: psutil.Popen, moment: str) -> bool:
        """Wait for a process at the moment and do a fault to it. Returns whether it came to that."""
        fault = self.soak.draw(moment, self.on_nodes)
        self._pause(process, self.soak.within(2.0 if moment != "start" else 0.2))
        pid = self._aim(process, fault in ("rank", "node"), moment)
        if pid is None:
            return False
        kill = Kill(fault, *self._phase(pid), time.monotonic())
        if fault in ("rank", "node"):
            try:
                self._kill(psutil.Process(pid), kill)
            except psutil.NoSuchProcess:  # it was quicker
                return False
        elif not self._end(process, kill):
            return False
        self.soak.hit(kill)
        return True

    def _aim(self, process: psutil.Popen, of_rank: bool, moment: str) -> int | None:
        """A process at the moment, at a random time within it; None where none comes there."""
        later = _LATER_IN_START_S if moment == "start" and not of_rank else _LATER_S
        limit = time.monotonic() + _AIM_S
        while process.poll() is None and time.monotonic() < limit:
            pids = [int(file.name.partition("-")[2]) for file in self.soak.trace.glob("phase-*")]
            if not any(self._is_at(pid, trained) for pid in pids for trained in _MOMENTS[1:]):
                limit = time.monotonic() + _AIM_S
            for pid in pids:
                if self._is_at(pid, moment) and not (of_rank and pid == process.pid):
                    self._pause(process, self.soak.within(later))
                    if self._is_at(pid, moment):
                        return pid
            time.sleep(0.002)
        return None

    def _is_at(self, pid: int, moment: str) -> bool:
        return self._phase(pid)[0] == moment and runs(pid)

    def _phase(self, pid: int) -> tuple[str, int | None]:
        with suppress(FileNotFoundError, ValueError):
            phase, fold = (self.soak.trace / f"phase-{pid}").read_text().split()
            return phase, None if fold == "None" else int(fold)
        return "between", None

    def _kill(self, rank: psutil.Process, kill: Kill) -> None:
        family = [rank, *rank.children(recursive=True)]
        if kill.fault == "rank":
            rank.kill()
        else:
            self.soak.nodes.lose(rank)
        kill.orphans = len(alive_after(40, family))
        kill.moment, kill.fold = self._phase(rank.pid)  # as it died, which is not always as it was seen

    def _end(self, process: psutil.Popen, kill: Kill) -> bool:
        process.send_signal(signal.SIGKILL if kill.fault == "command" else signal.SIGTERM)
        if (code := process.wait(180)) == 0:
            return False  # it was finished before it heard
        kill.code = None if kill.fault == "command" else code
        kill.orphans = len(alive_after(40, self.soak.running(self.name, self.on_nodes)))
        return True

    def _pause(self, process: psutil.Popen, seconds: float) -> None:
        limit = time.monotonic() + seconds
        while time.monotonic() < limit and process.poll() is None:
            time.sleep(0.001)


def _real(place: Path) -> str:
    source = os.environ.get("MELANOMA_DIST_ISIC")
    if not source:
        raise ConfigError("--data: name a prepared data set, or set MELANOMA_DIST_ISIC to a folder of ISIC images.")
    raw, given = place / "raw" / "2017", Path(source) / "2017"
    table, images = "ISIC-2017_Training_Part3_GroundTruth.csv", "ISIC-2017_Training_Data"
    (raw / images).mkdir(parents=True)
    few = pd.read_csv(given / table).groupby(["melanoma", "seborrheic_keratosis"]).head(12)
    few.to_csv(raw / table, index=False)
    for name in few["image_id"]:
        (raw / images / f"{name}.jpg").write_bytes((given / images / f"{name}.jpg").read_bytes())
    prepare(Request(raw.parent, ("2017",)), place / "data")
    return str(place / "data")


def main() -> None:
    """Train once, then kill and compare until there were enough."""
    settings = tyro.cli(Settings, description=__doc__)
    place = Path(tempfile.mkdtemp(prefix="chaos-"))
    soak = Soak(settings, place, settings.data or _real(place))
    count, bad = 0, 0
    with soak.nodes:
        soak.whole()
        while sum(kill.fault != "SIGTERM" for kill in soak.kills) < settings.kills and time.monotonic() < soak.until:
            bad += bool(soak.disturbed(count))
            count += 1
    tabulate(soak.kills)
    console.info(
        f"{len(soak.kills)} faults in {count} runs, {bad} of which are not as they should be; {machine()}; {commit()}"
    )
    if bad or any(kill.orphans for kill in soak.kills):
        raise MelanomaDistError(f"not every run ended as the undisturbed one: see {place}")
    shutil.rmtree(place)


if __name__ == "__main__":
    ended(main)

"""Does a training that is killed at random, again and again, end as one that never was?

    MELANOMA_DIST_ISIC=ISIC python benchmarks/chaos.py --minutes 20
    python benchmarks/chaos.py --minutes 20 --data DATA

36 real images of ISIC 2017 are prepared (or DATA is taken), and two folds of a small backbone trained on them once,
undisturbed. Then the same run is killed after random delays, a rank or the whole command by SIGKILL, or asked to end by
SIGTERM, and the command given again, until it is finished; and again, until the time is up. The last run goes
to its end in peace. Each run is compared with the undisturbed one byte by byte (`tests/chaos/outcome.py`).

Cost: as many minutes as asked for, and one run. It shows whether results depend on what happened to their processes.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import subprocess  # nosec B404  # for the program itself
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
from conditions import commit, ended, machine

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from melanoma_dist.data.prepare import Request, prepare  # noqa: E402
from melanoma_dist.errors import ConfigError  # noqa: E402
from melanoma_dist.log import say, show_table  # noqa: E402
from tests.chaos.outcome import differences, leftovers, repeated_steps  # noqa: E402

_FAULTS = ("rank SIGKILL", "command SIGKILL", "command SIGTERM")
_CHANCES = (12, 1, 1)  # a command that is killed takes a quarter of a minute to start again
_EVERY = 2  # steps between checkpoints


@dataclass(frozen=True)
class Settings:
    """How long, and on what."""

    minutes: float = 20.0
    """For how long runs are begun and killed."""
    seed: int = 0
    """Of the moments and kinds of faults."""
    data: str | None = None
    """Prepared data set; 36 images of $MELANOMA_DIST_ISIC where not given."""
    labels: str = "isic2017"
    """Labels that the data has."""
    epochs: int = 60
    """Epochs of a run."""


class Soak:
    """One undisturbed run, and disturbed ones beside it."""

    def __init__(self, settings: Settings, place: Path, data: str) -> None:
        self._place, self._random = place, random.Random(settings.seed)  # noqa: S311  # nosec B311  # repeatable
        self._flags = [
            *("--data", data, "--labels", settings.labels, "--gpus", "0", "--backbone", "test_resnet"),
            *("--weights", "none", "--image-size", "64", "--augment", "light", "--lr", "1e-3", "--folds", "2"),
            *("--batch-size", "4", "--epochs", str(settings.epochs), "--patience", str(settings.epochs)),
            *("--checkpoint-every", str(_EVERY), "--max-restarts", "1000", "--runs", str(place)),
        ]
        self.faults: Counter[str] = Counter()
        self.orphans = 0

    def start(self, name: str) -> subprocess.Popen[bytes]:
        trace = self._place / f"trace-{name}"
        trace.mkdir(exist_ok=True)
        path = os.pathsep.join([str(ROOT / "tests" / "chaos" / "sabotage"), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": path, "CHAOS_TRACE": str(trace)}
        log = (self._place / f"{name}.log").open("ab")
        command = [sys.executable, str(ROOT / "launch.py"), *self._flags, "--name", name]
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)  # noqa: S603  # nosec B603  # ours

    def disturb(self, name: str, until: float) -> None:
        """Kill and give the command again until the run is finished; after ``until``, disturb no more."""
        while True:
            process = self.start(name)
            self._harass(process, until)
            code = process.wait()
            if code == 0:
                return
            if code not in (-signal.SIGKILL, 75, 143):
                raise RuntimeError(f"{name} ended with code {code}: see {self._place / name}.log")

    def _harass(self, process: subprocess.Popen[bytes], until: float) -> None:
        while process.poll() is None:
            limit = time.monotonic() + self._random.uniform(0.5, 6.0)
            while time.monotonic() < limit and process.poll() is None:
                time.sleep(0.02)
            if time.monotonic() > until or process.poll() is not None:
                break
            (fault,) = self._random.choices(_FAULTS, _CHANCES)
            self._do(fault, process)

    def _do(self, fault: str, process: subprocess.Popen[bytes]) -> None:
        family = psutil.Process(process.pid).children(recursive=True)
        if fault == "rank SIGKILL":
            if not (ranks := [each for each in family if _title(each).startswith("ray::_Driver")]):
                return
            self._random.choice(ranks).kill()
        else:
            process.send_signal(signal.SIGKILL if "KILL" in fault else signal.SIGTERM)
            process.wait(90)
            working = [each for each in family if "Agent" not in _title(each)]  # Ray's two idle agents: a minute
            self.orphans += len(psutil.wait_procs(working, timeout=40)[1])
        self.faults[fault] += 1


def _title(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


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
    prepare(Request(raw.parent, (2017,)), place / "data")
    return str(place / "data")


def main() -> None:
    """Train once, then kill and compare until the time is up."""
    settings = tyro.cli(Settings, description=__doc__)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        place = Path(folder)
        soak = Soak(settings, place, settings.data or _real(place))
        if soak.start("whole").wait() != 0:
            raise RuntimeError((place / "whole.log").read_text())
        until, runs, different = time.monotonic() + 60 * settings.minutes, 0, 0
        again: list[int] = []
        while time.monotonic() < until:
            name, runs = f"killed-{runs}", runs + 1
            soak.disturb(name, until)
            found = differences(place / "whole", place / name)
            different += bool(found)
            again += repeated_steps(place / f"trace-{name}")
            say(f"{name}: {dict(soak.faults)}, different: {found}, left over: {leftovers(place / name)}")
        show_table("Faults", ["fault", "count"], [[fault, soak.faults[fault]] for fault in _FAULTS])
        median = statistics.median(again) if again else 0
        say(f"{sum(soak.faults.values())} faults in {runs} runs, of which {different} differ; {soak.orphans} orphans")
        say(f"{len(again)} restarts in training took again {median:g} steps (median), at most {max(again, default=0)}")
    say(f"{machine()}; commit {commit()}")


if __name__ == "__main__":
    ended(main)

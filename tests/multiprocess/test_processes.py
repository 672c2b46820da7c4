"""The engine with plain processes: a death, an error, an answer of a scheduler, and a command that is gone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT

PROGRAM = """
import json, os, sys, time, types
from pathlib import Path

FOLDER, CASE = Path(sys.argv[1]), sys.argv[2]

def train_unit(unit, world, report, stop_requested):
    from melanoma_dist.errors import TrainingError
    from melanoma_dist.train.events import EpochDone, UnitDone

    mark = unit.run / f"pid-{unit.fold}"
    first = not mark.exists()
    mark.write_text(str(os.getpid()))
    if CASE == "killed" and first:
        os.kill(os.getpid(), 9)
    if CASE == "error":
        raise TrainingError("the loss is not a number")
    if CASE == "waits":
        while not stop_requested():
            time.sleep(0.05)
        (unit.run / "stopped").touch()
    print("must not reach the terminal", flush=True)
    answer = report(EpochDone(unit.fold, 1, 2, 0.5, 0.5, "AUC", 0.7, 0.7, 1, 10.0, 0.0, 1.0))
    report(UnitDone(unit.fold, "AUC", 0.7, 1, f"{world}, answer {answer}"))

if __name__ != "__main__":  # a unit's process: without PyTorch it starts in a second
    sys.modules["melanoma_dist.train.loop"] = types.SimpleNamespace(train_unit=train_unit)
    sys.modules["melanoma_dist.train.device"] = types.SimpleNamespace(
        detect=lambda gpu, threads: (gpu, threads), warm_up=lambda gpu: None, release=lambda gpu: None
    )
else:
    from melanoma_dist.config.run import RunConfig
    from melanoma_dist.distributed.plan import Layout
    from melanoma_dist.distributed.units import train_units
    from melanoma_dist.train.events import EpochDone
    from melanoma_dist.train.unit import Unit

    class Source:
        def __init__(self):
            self.lines = []
            self.units = [Unit(RunConfig(), fold, "demo", "", FOLDER, fold == 1) for fold in range(2)]
        def next_unit(self):
            return self.units.pop(0) if self.units else None
        def on_event(self, unit, event):
            self.lines.append([unit.fold, type(event).__name__, getattr(event, "reason", getattr(event, "text", ""))])
            return "enough" if isinstance(event, EpochDone) else None
        def on_exit(self, unit, seconds):
            self.lines.append([unit.fold, "exit", ""])
        def on_failure(self, unit, seconds, error):
            self.lines.append([unit.fold, "failure", f"{type(error).__name__}: {error}"])
        def on_idle(self):
            pass

    source = Source()
    train_units(source, Layout(1, 1 if CASE == "one" else 2, False, 1.0, ""), grace_s=5)
    print(json.dumps(source.lines))
"""


def start(folder: Path, case: str) -> subprocess.Popen[str]:
    (folder / "program.py").write_text(PROGRAM)
    (folder / "fold-0").mkdir()
    (folder / "fold-1").mkdir()
    command = [sys.executable, str(folder / "program.py"), str(folder), case]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def lines(folder: Path, case: str) -> list[tuple[int, str, str]]:
    """What the source heard, by fold."""
    output, errors = start(folder, case).communicate(timeout=120)
    assert output.startswith("["), output + errors
    return [tuple(line) for line in sorted(json.loads(output), key=lambda line: line[0])]  # in their order, by fold


def test_units_report_and_the_scheduler_answers(tmp_path: Path) -> None:
    assert lines(tmp_path, "quiet") == [
        (0, "EpochDone", ""), (0, "UnitDone", "(None, 1), answer None"), (0, "exit", ""),
        (1, "EpochDone", ""), (1, "UnitDone", "(None, 1), answer enough"), (1, "exit", ""),
    ]  # fmt: skip


@pytest.mark.parametrize("fold", [0, 1])
def test_a_killed_unit_starts_again(fold: int, tmp_path: Path) -> None:
    (tmp_path / f"pid-{1 - fold}").touch()  # the other one lives
    heard = [line for line in lines(tmp_path, "killed") if line[0] == fold]
    assert [what for _, what, _ in heard] == ["Note", "EpochDone", "UnitDone", "exit"]
    assert heard[0][2].startswith("its process is gone: killed, or short of memory; restart 1 of")


def test_an_error_of_a_unit_is_not_repeated(tmp_path: Path) -> None:
    error = "TrainingError: the loss is not a number"
    assert lines(tmp_path, "error") == [(0, "failure", error), (1, "failure", error)]


def test_a_process_trains_one_unit_after_the_other(tmp_path: Path) -> None:
    assert [what for _, what, _ in lines(tmp_path, "one")] == ["EpochDone", "UnitDone", "exit"] * 2
    assert (tmp_path / "pid-0").read_text() == (tmp_path / "pid-1").read_text()


def test_units_stop_when_their_command_is_killed(tmp_path: Path) -> None:
    command = start(tmp_path, "waits")
    wait_for(tmp_path / "pid-0")
    command.send_signal(signal.SIGKILL)
    command.communicate()
    wait_for(tmp_path / "stopped")


def wait_for(path: Path) -> None:
    limit = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < limit, path
        time.sleep(0.05)

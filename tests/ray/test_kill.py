"""A killed command, or a killed rank, costs epochs and nothing else: the result is that of an undisturbed run."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import psutil
import pytest

from tests.ray.conftest import ROOT, SMALL, Launch

pytestmark = pytest.mark.slow

# Ray's own agents, idle by then, try for a minute to tell a server that died with the command.
_AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")


def test_a_command_killed_outright_leaves_no_process_and_is_completed_by_the_next(
    finished: Path, launch: Launch, environment: dict[str, str], tmp_path: Path
) -> None:
    with _training(tmp_path, environment) as (process, descendants):
        working = [child for child in descendants if _title(child) not in _AGENTS]
        process.kill()
        process.wait()
        assert psutil.wait_procs(working, timeout=30)[1] == []
    again = launch(*SMALL, "--runs", tmp_path, "--name", "killed")
    assert again.returncode == 0, again.stdout + again.stderr
    _assert_same_predictions(finished, tmp_path / "killed")
    assert psutil.wait_procs(descendants, timeout=120)[1] == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_a_command_that_is_asked_to_end_saves_and_is_completed_by_the_next(
    number: signal.Signals, code: int, finished: Path, launch: Launch, environment: dict[str, str], tmp_path: Path
) -> None:
    with _training(tmp_path, environment) as (process, descendants):
        process.send_signal(number)
        output, errors = process.communicate(timeout=120)
        assert process.returncode == code, output + errors
        assert errors.strip() == "saved, and ended as asked: the same command goes on from the very step."
        assert "asked to end: folds save at their next step, within 25 s" in output
        assert psutil.wait_procs(descendants, timeout=10)[1] == []
    again = launch(*SMALL, "--runs", tmp_path, "--name", "killed")
    assert again.returncode == 0, again.stdout + again.stderr
    _assert_same_predictions(finished, tmp_path / "killed")


def test_a_killed_rank_is_started_again_from_its_last_checkpoint(
    finished: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    with _training(tmp_path, environment) as (process, descendants):
        next(child for child in descendants if _title(child) == "ray::_Driver.train").kill()
        output, errors = process.communicate(timeout=400)
    assert process.returncode == 0, output + errors
    assert "restart 1 of 3" in output
    _assert_same_predictions(finished, tmp_path / "killed")


@contextmanager
def _training(runs: Path, environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], list[psutil.Process]]]:
    """The command in the middle of its training, a first epoch finished, and the processes it started."""
    command = [sys.executable, str(ROOT / "launch.py"), *SMALL, "--runs", str(runs), "--name", "killed"]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        _wait_for(lambda: any(runs.glob("killed/fold-*/metrics.jsonl")), process)
        yield process, psutil.Process(process.pid).children(recursive=True)
    finally:
        process.kill()
        process.communicate()


def _wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 300) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.1)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline()).strip()
    except psutil.Error:
        return ""


def _assert_same_predictions(whole: Path, other: Path) -> None:
    first, second = (pd.read_parquet(run / "predictions.parquet") for run in (whole, other))
    pd.testing.assert_frame_equal(first, second, check_exact=True)

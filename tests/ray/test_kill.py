"""A killed command, rerun, ends with the result of one that was never disturbed, and leaves no process behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest

from tests.ray.conftest import ROOT, SMALL, Launch


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["driver", "worker"])
def test_killed_and_rerun_is_complete(
    victim: str, finished: Path, launch: Launch, environment: dict[str, str], tmp_path: Path
) -> None:
    flags = [*SMALL, "--runs", str(tmp_path), "--name", "killed"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "launch.py"), *flags], env=environment, stdout=subprocess.PIPE, text=True
    )
    _wait_for(lambda: any(tmp_path.glob("killed/fold-*/metrics.jsonl")), process)
    descendants = psutil.Process(process.pid).children(recursive=True)
    if victim == "driver":
        process.send_signal(signal.SIGKILL)
        process.wait()
        _gone, alive = psutil.wait_procs(descendants, timeout=60)
        assert alive == []
        assert launch(*flags).returncode == 0
    else:
        driving = [
            child for child in descendants if "_Driver.train" in child.name() or "_Driver.train" in _title(child)
        ]
        assert driving
        driving[0].kill()
        output, _ = process.communicate(timeout=500)
        assert process.returncode == 0, output
        assert "restart 1 of 3" in output
    first = pd.read_parquet(finished / "predictions.parquet")
    pd.testing.assert_frame_equal(first, pd.read_parquet(tmp_path / "killed" / "predictions.parquet"), check_exact=True)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _wait_for(condition: object, process: subprocess.Popen[str], seconds: float = 300) -> None:
    limit = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert process.poll() is None, process.stdout.read() if process.stdout else ""
        assert time.monotonic() < limit
        time.sleep(0.1)

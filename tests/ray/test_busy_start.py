"""Ray on a machine so busy that its own deadlines pass, and a run without it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, SMALL

SLOW_AGENTS = """
import sys, time
if any(argument.endswith("agent.py") or argument.endswith("agent/main.py") for argument in sys.orig_argv):
    time.sleep(20)  # Ray's raylet waits 15 s
"""
CLUSTER = """
import ray
from melanoma_dist.config.hardware import HardwareConfig
from melanoma_dist.distributed.cluster import joined

@ray.remote
def answer():
    return 42

with joined(HardwareConfig(gpus=0, ranks_per_unit=2)):
    assert ray.get(answer.remote()) == 42
"""
WITHOUT_RAY = """
import sys
from melanoma_dist.distributed import cluster

def fail(**_):
    raise RuntimeError("the raylet is gone")

cluster._init = fail
if __name__ == "__main__":
    from melanoma_dist.cli import main
    sys.exit(main())
"""


def script(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


def test_ray_starts_although_its_agents_need_longer_than_it_waits_for_them(tmp_path: Path) -> None:
    script(tmp_path, "sitecustomize.py", SLOW_AGENTS)
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    command = [sys.executable, "-c", CLUSTER]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "did not start" not in done.stdout


@pytest.mark.slow
def test_one_cpu_rank_trains_stops_and_resumes_without_ray_to_the_same_bytes(
    finished: Path, environment: dict[str, str], tmp_path: Path
) -> None:
    program = script(tmp_path, "without_ray.py", WITHOUT_RAY)
    command = [sys.executable, str(program), *SMALL, "--runs", str(tmp_path), "--name", "whole"]
    env = {**environment, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    stopped = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert stopped.stdout is not None
    output = ""
    for line in stopped.stdout:
        output += line
        if "epoch 1" in line:
            stopped.send_signal(signal.SIGTERM)
            break
    text, _ = stopped.communicate(timeout=120)
    assert stopped.returncode == 75, text
    # Here, not below: on a busy machine both folds may end before the signal, and nothing is left to train then.
    assert "the folds train without Ray" in " ".join(output.split())
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("predictions.parquet", "model/fold-0.safetensors", "model/fold-1.safetensors"):
        assert (tmp_path / "whole" / name).read_bytes() == (finished / name).read_bytes(), name

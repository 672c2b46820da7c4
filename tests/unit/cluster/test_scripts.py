"""Slurm's script and the image: checked by linters, and run with stand-ins for Slurm's commands."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from .files import CLUSTER, ROOT, locked_version, read_text

SBATCH = CLUSTER / "slurm.sbatch"
SRUN = """#!/bin/bash
while [[ $1 == --* ]]; do shift; done
[[ $1 == ray ]] || exec "$@"
printf '%s\\n' "$@" > "$SEEN/ray"
stat -c '%a %n' "$RAY_AUTH_TOKEN_PATH" "$(dirname "$RAY_AUTH_TOKEN_PATH")" > "$SEEN/modes"
printf '%s %s' "$RAY_AUTH_MODE" "$(wc -c < "$RAY_AUTH_TOKEN_PATH")" > "$SEEN/token"
while [[ $1 != -- ]]; do shift; done
sleep "${LATE:-0}"
"${@:2}"
"""
PYTHON = """#!/bin/bash
trap 'echo heard >> "$SEEN/heard"; exit "${CODE:-7}"' USR1
printf '%s\\n' "$@" > "$SEEN/command"
for ((i = 0; i < ${LASTS:-0} * 10; i++)); do sleep 0.1; done
exit "${CODE:-7}"
"""
SCONTROL = """#!/bin/bash
if [[ $1 == show ]]; then echo node1; fi
echo "$@" >> "$SEEN/asked"
"""


def find_tool(name: str) -> str:
    """Find a tool in the development environment, or else on the machine."""
    path = shutil.which(name, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    assert path, f"{name} is in requirements.lock and is not installed"
    return path


def run_tool(*command: str | Path) -> None:
    result = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stdout + result.stderr


def test_bash_and_shellcheck_accept_the_slurm_script() -> None:
    run_tool("bash", "-n", SBATCH)
    run_tool(find_tool("shellcheck"), "--severity=style", SBATCH)


def test_hadolint_accepts_the_dockerfile() -> None:
    run_tool(find_tool("hadolint"), CLUSTER / "Dockerfile")


def test_the_slurm_script_requests_what_a_sweep_needs() -> None:
    options = dict(re.findall(r"^#SBATCH --([a-z-]+)(?:=(\S+))?$", SBATCH.read_text(), re.MULTILINE))
    assert options["ntasks-per-node"] == "1"
    assert options["signal"] == "B:USR1@120"
    assert {"requeue", "exclusive"} <= set(options)


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """A folder with stand-ins for the commands, and the environment that Slurm sets."""
    for name, program in (("srun", SRUN), ("scontrol", SCONTROL), ("python", PYTHON)):
        (tmp_path / name).write_text(program)
        (tmp_path / name).chmod(0o755)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    variables = {"JOB_ID": 5, "JOB_NUM_NODES": 4, "JOB_NODELIST": "node[1-4]", "CPUS_PER_TASK": 64, "GPUS_ON_NODE": 8}
    environment = {f"SLURM_{key}": str(value) for key, value in variables.items()}
    return {
        "PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path), "SEEN": str(tmp_path),
        "DATA": "s3://bucket/isic", "RUNS": "/shared/runs", **environment,
    }  # fmt: skip


def test_the_slurm_script_starts_a_cluster_with_a_token_and_the_command(slurm: dict[str, str], tmp_path: Path) -> None:
    words = ["sweep", "--space", "a space.py"]
    result = subprocess.run(
        ["bash", SBATCH, *words], cwd=tmp_path, env=slurm, timeout=60, capture_output=True, text=True
    )
    assert result.returncode == 7, result.stderr  # the command's exit code
    words_seen = (tmp_path / "ray").read_text().splitlines()
    split = words_seen.index("--")
    assert words_seen[:2] == ["ray", "symmetric-run"]
    assert {"--num-gpus=8", "--num-cpus=64", "--dashboard-host=127.0.0.1", "--min-nodes"} < set(words_seen[:split])
    address = words_seen[words_seen.index("--address") + 1]
    added = ["--data", "s3://bucket/isic", "--runs", "/shared/runs", "--gpus", "32", "--address", address]
    assert words_seen[split + 1 : split + 3] == ["bash", "-c"]
    assert (tmp_path / "command").read_text().splitlines() == ["launch.py", *words, *added]
    assert (tmp_path / "token").read_text() == "token 64"
    assert [line.split()[0] for line in (tmp_path / "modes").read_text().splitlines()] == ["600", "700"]
    assert not list(tmp_path.glob(".melanoma-dist-*"))


@pytest.mark.parametrize(("code", "requeued"), [("75", True), ("0", False)], ids=["saved", "finished"])
def test_the_signal_of_slurm_reaches_the_command(
    code: str, requeued: bool, slurm: dict[str, str], tmp_path: Path
) -> None:
    """A command that saved and exited with 75 is requeued; one that has just finished is not."""
    job = signal_job(tmp_path / "command", {**slurm, "LASTS": "60", "CODE": code}, tmp_path)
    assert job.wait(timeout=60) == int(code)
    assert (tmp_path / "heard").read_text() == "heard\n"
    assert ("requeue 5" in (tmp_path / "asked").read_text()) == requeued
    assert not list(tmp_path.glob(".melanoma-dist-*"))


def test_a_signal_before_the_command_has_started_requeues_the_job(slurm: dict[str, str], tmp_path: Path) -> None:
    job = signal_job(tmp_path / "token", {**slurm, "LATE": "3"}, tmp_path)
    assert job.wait(timeout=60) == 7
    assert "requeue 5" in (tmp_path / "asked").read_text()
    assert not (tmp_path / "heard").exists()


def signal_job(sign: Path, environment: dict[str, str], place: Path) -> subprocess.Popen[bytes]:
    """Start the job, and signal it once the file ``sign`` exists."""
    job = subprocess.Popen(["bash", SBATCH], cwd=place, env=environment, stdout=subprocess.DEVNULL)
    limit = time.monotonic() + 60
    while not sign.is_file():
        assert time.monotonic() < limit
        time.sleep(0.02)
    job.send_signal(signal.SIGUSR1)
    return job


def test_the_image_holds_the_locked_libraries_and_runs_as_an_ordinary_user() -> None:
    joined = re.sub(r"\\\n", " ", read_text("Dockerfile"))
    steps = [line.split(maxsplit=1) for line in joined.splitlines() if line and not line.startswith("#")]
    names = [name for name, _ in steps]
    assert steps[0] == ["FROM", "python:3.11-slim"]
    assert [rest for name, rest in steps if name == "USER"] == ["1000"]
    assert names.index("USER") > max(at for at, name in enumerate(names) if name == "RUN")
    installs = [part for name, rest in steps if name == "RUN" for part in rest.split("&&") if "uv pip install" in part]
    assert any("--requirement requirements.lock" in part for part in installs)
    assert all("requirements.lock" in part or "--no-deps --editable ." in part for part in installs)
    # The user of the container cannot write what Python compiles.
    assert all("--compile-bytecode" in part for part in installs if "requirements.lock" in part)
    assert "compileall -q melanoma_dist" in joined
    assert "RAY_AUTH_MODE=token" in joined
    assert locked_version("ray")  # the image names no other version of Ray
    assert not re.search(r"\bray(\[|==)", joined)


def test_the_files_copied_into_the_image_exist() -> None:
    copied = {line[1:] for line in read_text("Dockerfile.dockerignore").splitlines() if line.startswith("!")}
    assert {"melanoma_dist", "launch.py", "requirements.lock", "pyproject.toml"} < copied
    assert [name for name in copied if not (ROOT / name).exists()] == []

"""Faults around a run: its disk is lost, another Ray runs on its host."""

from __future__ import annotations

import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .conftest import Command, assert_same
from .outcome import differences, leftovers

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
OTHER = """
import ray
ray.init(address="local", include_dashboard=False, num_cpus=1)
print("address", ray.get_runtime_context().gcs_address, flush=True)
input()
answer = ray.remote(num_cpus=0)(lambda: "well").remote()
print("other is", ray.get(answer), "with", len(ray._private.state.jobs()), "job on", len(ray.nodes()), "node")
"""


def test_a_lost_run_is_restored_from_its_mirror(command: Command, finished: Path) -> None:
    """Promise e: the command is killed and its folder lost; the same command resumes from the mirror."""
    mirror = ["--mirror", f"file://{command.place}/mirror"]
    command.plan("mirror.copy:FolderCopy.update", 3, do="signal command 9", when="after", fold=0)
    assert command.give(*mirror).returncode == -9
    shutil.rmtree(command.run)
    done = command.give(*mirror)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "restoring file://" in done.stdout
    assert "resumes after" in done.stdout
    assert differences(command.run, finished) == []
    assert leftovers(command.run) == []


@pytest.fixture
def other(command: Command) -> Iterator[subprocess.Popen[str]]:
    """Another Ray on this host, with its own token."""
    token = command.place / "other-token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    environment = {**command.environment, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    process = subprocess.Popen(
        [sys.executable, "-c", OTHER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_another_ray_on_the_host_is_neither_joined_nor_hurt(
    command: Command, other: subprocess.Popen[str], finished: Path
) -> None:
    """Promise f: even if the environment names it; and it still runs after the command."""
    assert other.stdout is not None
    address = next(line.split()[1] for line in other.stdout if line.startswith("address"))
    assert_same(command, finished, command.give(RAY_ADDRESS=address))
    output, _ = other.communicate("\n", timeout=60)
    assert "other is well with 1 job on 1 node" in output

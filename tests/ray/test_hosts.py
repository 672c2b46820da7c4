"""Two hosts with their own addresses, in network namespaces: a sweep uses both and survives the loss of one."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import psutil
import pytest

from tests.conftest import ROOT
from tests.ray.sweeps import SMALL, epochs_of, leaderboard, wait_for
from tests.ray.test_sweep import SPACE

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
RAY = str(Path(sys.executable).with_name("ray"))


@dataclass(frozen=True)
class Host:
    """A network namespace with one address."""

    name: str
    address: str

    def start(self, *command: str, environment: dict[str, str]) -> subprocess.Popen[str]:
        inside = ["ip", "netns", "exec", self.name, *command]
        return subprocess.Popen(inside, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def processes(self) -> list[psutil.Process]:
        done = subprocess.run(["ip", "netns", "pids", self.name], capture_output=True, text=True)
        return [psutil.Process(int(pid)) for pid in done.stdout.split() if psutil.pid_exists(int(pid))]

    def lose(self) -> None:
        """Kill everything on it at once."""
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)

    def trains(self) -> bool:
        titles = []
        for process in self.processes():
            with suppress(psutil.Error):
                titles.append(" ".join(process.cmdline()))
        return any(title.startswith("ray::_Driver.train") for title in titles)


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    tag = secrets.token_hex(2)
    pair = Host(f"head-{tag}", "10.213.7.1"), Host(f"node-{tag}", "10.213.7.2")
    ends = f"mda{tag}", f"mdb{tag}"
    steps = [f"ip netns add {host.name}" for host in pair]
    steps += [f"ip link add {ends[0]} type veth peer name {ends[1]}"]
    for host, end in zip(pair, ends, strict=True):
        steps += [
            f"ip link set {end} netns {host.name}",
            f"ip -n {host.name} addr add {host.address}/24 dev {end}",
            f"ip -n {host.name} link set {end} up",
            f"ip -n {host.name} link set lo up",
        ]
    try:
        for step in steps:
            done = subprocess.run(step.split(), capture_output=True, text=True)
            if done.returncode:
                pytest.skip(f"no network namespaces here: {step}: {done.stderr.strip()}")
        yield pair
    finally:
        for host in pair:
            host.lose()
            subprocess.run(["ip", "netns", "del", host.name], capture_output=True)


def test_a_sweep_spreads_over_two_hosts_and_outlives_one(
    hosts: tuple[Host, Host], environment: dict[str, str], tmp_path: Path
) -> None:
    head, node = hosts
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    inside = {**os.environ, **environment, **secret, "RAY_worker_niceness": "0"}
    space, runs = tmp_path / "space.py", tmp_path / "runs"
    space.write_text(SPACE)
    address = f"{head.address}:6379"
    raylet_on(head, ["--head", "--port", "6379", "--include-dashboard", "false"], inside, tmp_path)
    raylet_on(node, ["--address", address], inside, tmp_path)
    command = [sys.executable, str(ROOT / "launch.py"), "sweep", "--space", str(space), "--trials", "5", *SMALL]
    sweep = head.start(*command, "--address", address, "--runs", str(runs), "--name", "hosts", environment=inside)
    wait_for(lambda: head.trains() and node.trains() and epochs_of(runs / "hosts") >= 2, sweep)
    node.lose()
    output, errors = sweep.communicate(timeout=1200)
    assert sweep.returncode == 0, output + errors
    assert "2 folds at a time" in output
    assert "restart 1 of 3 from its last checkpoint" in output
    board = leaderboard(runs / "hosts")
    assert len(board) == 5
    assert set(board["state"]) <= {"complete", "waiting", "dropped"}
    assert pd.read_parquet(runs / "hosts" / "ledger.parquet")["state"].isin(["finished", "waiting", "stopped"]).all()


def raylet_on(host: Host, flags: list[str], environment: dict[str, str], logs: Path) -> None:
    """Start Ray on a host. On a busy machine its own time limits are too short: three tries."""
    start = [RAY, "start", *flags, "--node-ip-address", host.address, "--num-cpus", "1", "--disable-usage-stats"]
    for attempt in range(3):
        log = logs / f"{host.name}-{attempt}.log"
        with log.open("w") as output:
            inside = ["ip", "netns", "exec", host.name, *start]
            code = subprocess.run(inside, env=environment, stdout=output, stderr=output, timeout=180).returncode
        if code == 0:
            return
        host.lose()
    raise AssertionError(log.read_text())

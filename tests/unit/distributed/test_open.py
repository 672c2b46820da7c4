"""Ray's own head process, alone, with and without a token: the open one is not joined."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ray

from melanoma_dist.config.hardware import HardwareConfig
from melanoma_dist.distributed.cluster import _is_open, joined
from melanoma_dist.errors import ConfigError

SERVER = Path(ray.__file__).parent / "core" / "src" / "ray" / "gcs" / "gcs_server"
Start = Callable[..., str]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a head with its token in the environment. Returns its address."""
    running: list[subprocess.Popen[bytes]] = []

    def begin(**environment: str) -> str:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [SERVER, f"--gcs_server_port={port}", "--node-ip-address=127.0.0.1", "--session-name=x"]
        log = (tmp_path / "log").open("wb")
        with log:
            running.append(
                subprocess.Popen(
                    [*command, f"--log_dir={tmp_path}"], env={**os.environ, **environment}, stdout=log, stderr=log
                )
            )
        limit = time.monotonic() + 60
        while time.monotonic() < limit:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return f"127.0.0.1:{port}"
            time.sleep(0.1)
        raise AssertionError((tmp_path / "log").read_text())

    yield begin
    for process in running:
        process.kill()
        process.wait()


def test_an_open_cluster_is_not_joined(start: Start) -> None:
    address = start(RAY_AUTH_MODE="disabled")
    assert _is_open(address)
    rule = f"--address {address}: the Ray cluster there accepts requests without a token"
    with pytest.raises(ConfigError, match=rule), joined(HardwareConfig(gpus=0, address=address)):
        pass


def test_a_cluster_that_demands_a_token_is_not_open(start: Start) -> None:
    assert not _is_open(start(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="5e" * 32))

"""Two nodes of one machine, guarded by a token: who may join, and whether nodes share the run's folder."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import pytest

from melanoma_dist.config.hardware import HardwareConfig
from melanoma_dist.distributed.cluster import joined
from melanoma_dist.errors import ConfigError
from tests.conftest import ROOT, SMALL

NODES = """
from ray.cluster_utils import Cluster
for attempt in range(3):  # Ray waits 30 s for its own processes, too short on a busy machine
    try:
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        cluster.add_node(num_cpus=1)
        break
    except Exception as error:
        print(error)
print("address", cluster.address, flush=True)
input()
cluster.shutdown()
"""
SHARED = """
import sys
from pathlib import Path
import ray
from melanoma_dist.config.hardware import HardwareConfig
from melanoma_dist.distributed import nodes
from melanoma_dist.distributed.cluster import joined
from melanoma_dist.errors import ConfigError

def blind_on(node):
    return lambda sign: ray.get_runtime_context().get_node_id() != node

with joined(HardwareConfig(gpus=0, address=sys.argv[1])) as machines:
    print("nodes", len(machines.cores))
    runs = Path(sys.argv[2])
    nodes.require_shared(runs)
    print("left", list(runs.iterdir()))
    nodes._reaches = blind_on(ray.nodes()[0]["NodeID"])
    try:
        nodes.require_shared(runs)
    except ConfigError as error:
        print(error)
"""


@dataclass(frozen=True)
class Head:
    address: str
    environment: dict[str, str]

    def python(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, env={**self.environment, **environment},
            capture_output=True, text=True, timeout=400,
        )  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="module")
def head(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Head]:
    """The head of two nodes."""
    token = tmp_path_factory.mktemp("token") / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    chosen = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    whole = {**environment, **chosen}
    nodes = subprocess.Popen(
        [sys.executable, "-c", NODES], env=whole, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert nodes.stdout is not None
    try:
        yield Head(next(line.split()[1] for line in nodes.stdout if line.startswith("address")), whole)
    finally:
        nodes.communicate("end\n", timeout=60)


def test_nodes_that_share_no_folder_are_named(head: Head, tmp_path: Path) -> None:
    done = head.python("-c", SHARED, head.address, str(tmp_path))
    assert "nodes 2" in done.stdout, done.stderr
    assert "left []" in done.stdout
    assert (
        f"--runs {tmp_path.parent}: every node must write there; 1 node of 2 cannot: {head.address.split(':')[0]}"
        in done.stdout
    )


def test_a_wrong_token_is_refused_with_one_message(head: Head) -> None:
    program = (
        "import sys\n"
        "from melanoma_dist.config.hardware import HardwareConfig\n"
        "from melanoma_dist.distributed.cluster import joined\n"
        "with joined(HardwareConfig(gpus=0, address=sys.argv[1])): pass\n"
    )
    start = time.monotonic()
    done = head.python("-c", program, head.address, RAY_AUTH_TOKEN="f" * 64)
    assert time.monotonic() - start < 60
    assert f"ConfigError: --address {head.address}: the Ray cluster there cannot be joined" in done.stderr
    assert "RAY_AUTH_TOKEN_PATH" in done.stderr


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "nowhere.invalid:6379"])
def test_a_dead_address_is_refused_within_seconds(address: str) -> None:
    address = address.format(port=free_port())
    start = time.monotonic()
    refused = pytest.raises(ConfigError, match=f"--address {address}: no Ray cluster answers there")
    with refused, joined(HardwareConfig(gpus=0, address=address)):
        pass
    assert time.monotonic() - start < 10


@pytest.mark.parametrize("address", ["nonsense", "ray://127.0.0.1:10001x", "127.0.0.1:port"])
def test_a_malformed_address_is_refused(address: str) -> None:
    refused = pytest.raises(ConfigError, match="must be auto or HOST:PORT")
    with refused, joined(HardwareConfig(gpus=0, address=address)):
        pass


@pytest.mark.slow
def test_a_run_on_two_nodes_whose_data_lies_in_a_storage(head: Head, finished: Path, tmp_path: Path) -> None:
    """The same predictions as on one machine, from one copy."""
    (prepared,) = (Path(head.environment["XDG_CACHE_HOME"]) / "melanoma-dist").glob("demo-*/prepared")
    flags = ["--data", f"file://{prepared}", "--address", head.address, "--runs", str(tmp_path), "--name", "two"]
    done = head.python("launch.py", *SMALL, *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 folds at a time" in done.stdout
    assert done.stdout.count("copying file://") == 1
    tables = [pd.read_parquet(run / "predictions.parquet") for run in (finished, tmp_path / "two")]
    pd.testing.assert_frame_equal(*tables, check_exact=True)
    assert os.listdir(Path(head.environment["XDG_CACHE_HOME"]) / "melanoma-dist" / "copies")

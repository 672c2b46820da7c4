"""Private clusters: guarded by a token, closed to others, and independent of each other and of the environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

PRIVATE = """
import json, os, subprocess, warnings
from multiprocessing import resource_tracker
from pathlib import Path
import ray
from melanoma_dist.config.hardware import HardwareConfig
from melanoma_dist.distributed.cluster import _is_open, joined

@ray.remote(num_cpus=0)
def package():
    import melanoma_dist
    return melanoma_dist.__file__

@ray.remote(num_cpus=0)
def environment():
    return {key: value for key, value in os.environ.items() if key.startswith("RAY_")}

resource_tracker.ensure_running()
with joined(HardwareConfig(gpus=0)) as machines:
    other = subprocess.Popen(["sleep", "60"])
    here = ray._private.worker._global_node
    folder = Path(here.temp_dir).parent
    print(json.dumps({
        "address": here.gcs_address, "nodes": len(machines.cores), "open": _is_open(here.gcs_address),
        "token": os.environ["RAY_AUTH_TOKEN"], "worker": ray.get(environment.remote()), "folder": str(folder),
        "mode": oct(folder.stat().st_mode & 0o777), "store": ray.cluster_resources()["object_store_memory"],
        "package": ray.get(package.remote()),
        "readable": [path.name for path in folder.rglob("*") if path.is_file()
                  and os.environ["RAY_AUTH_TOKEN"].encode() in path.read_bytes()],
    }), flush=True)
    input()
    assert ray.get(environment.remote())
assert other.poll() is None
other.kill()
warnings.simplefilter("error")  # the tracker warns when it has to start again
resource_tracker.ensure_running()
"""
COMMAND = [sys.executable, "-c", PRIVATE]


def start(command: list[str], folder: Path = ROOT, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, cwd=folder, env={**os.environ, **environment}, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def facts_and_output(process: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    """The facts that a process prints about its cluster, and its output before them."""
    assert process.stdout is not None
    assert process.stderr is not None
    before = ""
    for line in process.stdout:
        if line.startswith("{"):
            return json.loads(line), before
        before += line
    raise AssertionError(before + process.stderr.read())


def test_two_side_by_side_in_a_hostile_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)  # of a private cluster that this process had before
    hostile = {"HOME": str(tmp_path / "home"), "RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": "192.0.2.7:6379"}
    hostile["PYTHONPATH"] = str(ROOT)
    (tmp_path / "home").mkdir()
    (tmp_path / "private.py").write_text(PRIVATE)
    here = tmp_path / "here"  # with another version of the package
    (here / "melanoma_dist").mkdir(parents=True)
    (here / "melanoma_dist" / "__init__.py").touch()
    pair, clusters, ends = [], [], []
    try:
        for _ in range(2):  # one after the other, on a machine of two cores
            pair.append(start([sys.executable, str(tmp_path / "private.py")], here, **hostile))
            cluster, output = facts_and_output(pair[-1])
            clusters.append(cluster)
            assert "RAY_ADDRESS=192.0.2.7:6379 is ignored" in " ".join(output.split())
            assert cluster["token"] not in output
    finally:
        ends = [process.communicate("end\n", timeout=120) for process in pair]
    for process, cluster, (_, errors) in zip(pair, clusters, ends, strict=True):
        assert process.returncode == 0, errors
        assert (cluster["nodes"], cluster["open"], cluster["mode"]) == (1, False, "0o700")
        assert cluster["worker"]["RAY_AUTH_MODE"] == "token"
        assert "RAY_ADDRESS" not in cluster["worker"]
        assert cluster["readable"] == []
        assert Path(cluster["package"]) == ROOT / "melanoma_dist" / "__init__.py"
        assert not Path(cluster["folder"]).exists()
    assert all(clusters[0][key] != clusters[1][key] for key in ("address", "token", "folder"))
    assert list((tmp_path / "home").iterdir()) == []


def test_a_private_cluster_needs_little_shared_memory() -> None:
    little = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=16m tmpfs /dev/shm && exec "$@"', "sh"]
    probe = start([*little, "true"])
    if probe.communicate()[1] or probe.returncode:
        pytest.skip("no mounts here")
    process = start([*little, *COMMAND])
    try:
        cluster, _ = facts_and_output(process)
    finally:
        _, errors = process.communicate("end\n", timeout=120)
    assert process.returncode == 0, errors
    assert cluster["store"] == 128 * 2**20

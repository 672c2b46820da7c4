"""A cluster that grows for a sweep and shrinks after it: nodes of Ray's fake provider, with GPUs in name only.

The units only pretend to train. What drives them is real: each asks Ray for its GPU and sees no other one.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray
from ray._private.services import get_node_ip_address
from ray._raylet import Config

from tests.conftest import ROOT

from .test_nodes import free_port

pytestmark = pytest.mark.long

TORCH = """
import os

class Tensor:
    pass

class cuda:
    device_count = staticmethod(lambda: len(os.environ["CUDA_VISIBLE_DEVICES"].split(",")))
"""
SITE = """
import os, sys, time, types

def train_unit(unit, world, report, stop_requested):
    place = unit.run / f"fold-{unit.fold}"
    first = not place.exists()
    place.write_text(f"{os.getpid()} {os.environ['CUDA_VISIBLE_DEVICES']} {world[0]}")
    if unit.fold == 1 and first:
        os.kill(os.getpid(), 9)
    time.sleep(10)

sys.modules["melanoma_dist.train.loop"] = types.SimpleNamespace(train_unit=train_unit)
sys.modules["melanoma_dist.train.device"] = types.SimpleNamespace(
    detect=lambda gpu, threads: (gpu, threads), warm_up=lambda gpu: None, release=lambda gpu: None
)
"""
HEAD = """
import sys
from melanoma_dist.distributed.busy_start import patience
from ray.scripts.scripts import cli
with patience():
    cli(sys.argv[1:])
"""
PROGRAM = """
import sys
from pathlib import Path
import ray
from melanoma_dist.config.hardware import HardwareConfig
from melanoma_dist.config.run import RunConfig
from melanoma_dist.distributed import ray_workers
from melanoma_dist.distributed.cluster import joined
from melanoma_dist.distributed.plan import lay_out
from melanoma_dist.distributed.units import train_units
from melanoma_dist.train.unit import Unit

ray_workers._NODE_LOSS_S = 1.0
units = [Unit(RunConfig(), fold, "demo", "", Path(sys.argv[2])) for fold in range(8)]

class Folds:
    most = 0
    def next_unit(self):
        return units.pop(0) if units else None
    def on_event(self, unit, event):
        print(unit.name, getattr(event, "text", ""), flush=True)
    def on_exit(self, unit, seconds):
        print(unit.name, "exit", flush=True)
    def on_failure(self, unit, seconds, error):
        raise error
    def on_idle(self):
        self.most = max(self.most, sum(node["Resources"].get("GPU", 0) for node in ray.nodes() if node["Alive"]))

with joined(HardwareConfig(gpus=4, address=sys.argv[1])) as machines:
    layout = lay_out(machines, 8, 32, 4, None)
    print(layout.reason, flush=True)
    folds = Folds()
    train_units(folds, layout, 5.0, units=8)
    print("most GPUs", int(folds.most), flush=True)
"""


def configuration(address: str) -> dict[str, object]:
    worker = {"resources": {"CPU": 2, "GPU": 2, "object_store_memory": 10**8}, "node_config": {}}
    empty = ("auth", "docker", "file_mounts")
    lists = ("initialization", "setup", "head_setup", "worker_setup", "head_start_ray", "worker_start_ray")
    return {
        "cluster_name": "fake", "max_workers": 2, "upscaling_speed": 10.0, "idle_timeout_minutes": 0.2,
        "provider": {
            "type": "fake_multinode", "use_node_id_as_ip": True, "disable_node_updaters": True,
            "disable_launch_config_check": True, "gcs_address": address,
        },
        "available_node_types": {
            "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
            "worker": {**worker, "min_workers": 0, "max_workers": 2},
        },
        "head_node_type": "ray.head.default", "cluster_synced_files": [], "file_mounts_sync_continuously": False,
        "rsync_exclude": [], "rsync_filter": [], **{name: {} for name in empty},
        **{f"{name}_commands": [] for name in lists},
    }  # fmt: skip


@pytest.fixture
def head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of an autoscaling cluster without a GPU. (AutoscalingCluster of Ray stops all clusters here.)"""
    token = tmp_path / "token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    temporary = tempfile.mkdtemp(prefix="ray-test-")  # short: sockets are below it
    for key, value in {
        "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_enable_autoscaler_v2": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    }.items():  # fmt: skip
        monkeypatch.setenv(key, value)
    address = f"{get_node_ip_address()}:{free_port()}"
    (tmp_path / "autoscaling.json").write_text(json.dumps(configuration(address)))
    command = [
        sys.executable, "-c", HEAD, "start", "--head", "--block", "--port", address.split(":")[1],
        "--num-cpus=1", "--num-gpus=0", "--include-dashboard=false", f"--temp-dir={temporary}",
        f"--autoscaling-config={tmp_path / 'autoscaling.json'}", "--object-store-memory=100000000",
    ]  # fmt: skip
    log = tmp_path / "head.log"
    with log.open("wb") as output:
        started = subprocess.Popen(command, stdout=output, stderr=output, start_new_session=True, cwd=ROOT)
    try:
        limit = time.monotonic() + 240
        while "Ray runtime started" not in log.read_text():
            assert time.monotonic() < limit, log.read_text()
            time.sleep(1)
        time.sleep(20)  # until its monitor reports
        yield address
    finally:
        started.kill()
        started.wait()
        for process in psutil.process_iter(["cmdline"]):
            if any(temporary in part for part in process.info["cmdline"] or ()):
                process.kill()


def test_nodes_join_for_waiting_units_and_leave_after_them(
    head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (("torch/__init__.py", TORCH), ("sitecustomize.py", SITE)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    runs = tmp_path / "run"
    runs.mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)])}
    command = [sys.executable, "-c", PROGRAM, head, str(runs)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "waiting for the first GPU: the cluster has none, and its autoscaler is asked for 4" in done.stdout
    assert "4 folds at a time on 1 GPU each" in done.stdout
    assert "its process is gone: killed, or short of memory; restart 1 of 3" in done.stdout
    assert sorted(re.findall(r"^run fold (\d) exit$", done.stdout, re.MULTILINE)) == list("01234567")
    assert "most GPUs 4" in done.stdout
    places = [(runs / f"fold-{fold}").read_text().split() for fold in range(8)]
    assert {visible for _, visible, _ in places} == {"0", "1"}  # of each node's two, a driver sees its own
    assert {index for _, _, index in places} == {"0"}
    assert len({pid for pid, _, _ in places}) < 8  # drivers trained one unit after the other
    limit = time.monotonic() + 120
    Config.initialize("")  # Ray may have read the environment before the token was there
    ray.init(address=head, log_to_driver=False)
    try:
        while any(node["Resources"].get("GPU") for node in ray.nodes() if node["Alive"]):
            assert time.monotonic() < limit
            time.sleep(2)
    finally:
        ray.shutdown()
        monkeypatch.undo()
        Config.initialize("")

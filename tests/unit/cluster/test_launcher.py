"""The files for `ray up` pass Ray's own schema and checks, and no cluster is open."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import ray.autoscaler
from ray.autoscaler._private.util import prepare_config, validate_config

from .files import ROOT, read_documents

FILES = ("aws.yaml", "gcp.yaml", "ssh.yaml")
CLOUDS = ("aws.yaml", "gcp.yaml")


@pytest.fixture(params=FILES)
def config(request: pytest.FixtureRequest) -> dict[str, Any]:
    (only,) = read_documents(request.param)
    return only


def commands(config: dict[str, Any]) -> list[str]:
    return [line for key, lines in config.items() if key.endswith("_commands") for line in lines]


def test_rays_schema_accepts_it(config: dict[str, Any]) -> None:
    validate_config(prepare_config(config))


@pytest.mark.parametrize("name", CLOUDS)
def test_rays_schema_accepts_it_without_defaults(name: str) -> None:
    """(For machines reached by SSH, Ray itself adds what its schema requires.)"""
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(read_documents(name)[0], schema)


def test_rays_schema_refuses_a_misspelt_field(config: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validate_config(prepare_config({**config, "head_start_ray_comands": []}))


def test_every_start_of_ray_requires_the_token_and_keeps_the_dashboard_on_loopback(config: dict[str, Any]) -> None:
    starts = [line for line in commands(config) if re.search(r"\bray start\b", line)]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token " in line for line in starts)
    hosts = re.findall(r"--dashboard-host[= ](\S+)", " ".join(commands(config)))
    assert hosts == ["127.0.0.1"]
    assert not re.search(r"0\.0\.0\.0|RAY_AUTH_MODE=disabled", json.dumps(config))
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"  # noqa: S105  # a path
    assert "chmod 700 ~/.ray && chmod 600 ~/.ray/auth_token" in config["setup_commands"]


def test_tensorboard_is_reached_through_a_tunnel_only(config: dict[str, Any]) -> None:
    (board,) = (line for line in config["head_start_ray_commands"] if "tensorboard" in line)
    assert "--host 127.0.0.1" in board
    assert "--bind_all" not in board


def test_the_files_copied_to_the_nodes_exist(config: dict[str, Any]) -> None:
    sources = {source for source in config["file_mounts"].values() if not source.startswith("~")}
    assert {"melanoma_dist", "launch.py", "requirements.lock", "pyproject.toml"} < sources
    assert [source for source in sources if not (ROOT / source).exists()] == []


def test_nodes_install_the_locked_versions(config: dict[str, Any]) -> None:
    installs = [line for line in commands(config) if "uv pip install" in line]
    assert len(installs) >= 2
    assert all("requirements.lock" in line or "--no-deps --editable ." in line for line in installs)


@pytest.mark.parametrize("name", CLOUDS)
def test_workers_of_a_cloud_have_32_gpus_and_the_head_trains_nothing(name: str) -> None:
    (config,) = read_documents(name)
    head, worker = config["available_node_types"]["head"], config["available_node_types"]["worker"]
    assert head["resources"] == {"CPU": 0}
    # A command counts GPUs when it starts, so none may still have to be requested.
    assert worker["min_workers"] == worker["max_workers"] == config["max_workers"] == 4
    assert all(line in config["initialization_commands"] for line in ["sudo mkdir -p /runs"])
    assert any("mountpoint -q /runs || sudo mount" in line for line in config["initialization_commands"])

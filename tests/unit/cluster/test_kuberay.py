"""KubeRay's files: valid, with the locked Ray version, protected by a token and closed to the outside."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from melanoma_dist.config.serve import TOKEN_VARIABLE
from melanoma_dist.errors import ConfigError

from . import kuberay
from .files import locked_version, ray_document, read_documents, read_text

FILES = ("kuberay/raycluster.yaml", "kuberay/rayjob.yaml")
SERVICE = "kuberay/rayservice.yaml"


def cluster_spec(name: str) -> dict[str, Any]:
    spec = ray_document(name)["spec"]
    return dict(spec.get("rayClusterSpec", spec.get("rayClusterConfig", spec)))


@pytest.fixture(params=[*FILES, SERVICE])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_document_is_valid(name: str) -> None:
    kinds = [type(kuberay.check(document)).__name__ for document in read_documents(name)]
    assert kinds[-2:] == ["NetworkPolicy", ray_document(name)["kind"]]


def test_a_misspelt_field_is_detected(name: str) -> None:
    broken = copy.deepcopy(ray_document(name))
    inner = [broken["spec"][key] for key in ("rayClusterSpec", "rayClusterConfig") if key in broken["spec"]]
    (inner or [broken["spec"]])[0]["workerGroupspecs"] = []
    with pytest.raises(ValidationError):
        kuberay.check(broken)


def test_the_clusters_ray_version_is_the_locked_one(name: str) -> None:
    assert cluster_spec(name)["rayVersion"] == locked_version("ray")


def test_access_requires_the_token_and_the_clusters_network(name: str) -> None:
    spec = cluster_spec(name)
    assert spec["authOptions"] == {"mode": "token"}
    assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert not {"enableIngress", "ingressOptions"} & set(spec["headGroupSpec"])
    pods = [group["template"]["metadata"]["labels"] for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"])]
    (policy,) = (document["spec"] for document in read_documents(name) if document["kind"] == "NetworkPolicy")
    assert all(policy["podSelector"]["matchLabels"].items() <= labels.items() for labels in pods)
    sources = [peer for rule in policy["ingress"] for peer in rule["from"]]
    assert {"podSelector": policy["podSelector"]} in sources
    if name != SERVICE:
        assert "0.0.0.0" not in read_text(name)  # noqa: S104  # asserts its absence


def test_the_dashboard_of_a_permanent_cluster_is_on_loopback() -> None:
    """A job's is on the pod's address, because the operator asks it; token and policy protect it."""
    permanent, job = (cluster_spec(name)["headGroupSpec"]["rayStartParams"] for name in FILES)
    assert permanent["dashboard-host"] == "127.0.0.1"
    assert set(job) == {"num-cpus"}


def test_all_pods_share_the_runs_and_mount_only_existing_volumes(name: str) -> None:
    spec = cluster_spec(name)
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod["volumes"]}
        assert volumes["runs"]["persistentVolumeClaim"]["claimName"] == "melanoma-dist-runs"
        ray, *others = pod["containers"]
        assert {mount["name"] for mount in ray["volumeMounts"]} == set(volumes)
        assert {mount["name"]: mount["mountPath"] for mount in ray["volumeMounts"]}["cache"] == "/cache"
        assert all({mount["name"] for mount in other["volumeMounts"]} <= set(volumes) for other in others)


def test_the_services_application_is_one_that_ray_serve_and_the_server_accept(monkeypatch: pytest.MonkeyPatch) -> None:
    from ray.serve.schema import ServeDeploySchema

    from melanoma_dist.app.server import replicas

    config = ServeDeploySchema.model_validate(yaml.safe_load(ray_document(SERVICE)["spec"]["serveConfigV2"]))
    (service,) = config.applications
    module, function = service.import_path.split(":")
    assert (module, function) == (replicas.__name__, replicas.deploy.__name__)
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    with pytest.raises(ConfigError, match="Secret with a token"):
        replicas.deploy(service.args)
    monkeypatch.setenv(TOKEN_VARIABLE, "x" * 32)
    bound = replicas.deploy(service.args)
    options = bound._bound_deployment.ray_actor_options
    workers = cluster_spec(SERVICE)["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["resources"]["limits"]
    count = bound._bound_deployment.num_replicas
    assert count * options["num_gpus"] <= workers["nvidia.com/gpu"]
    assert count * options["num_cpus"] <= int(workers["cpu"])


def test_every_pod_of_the_service_has_the_token_from_a_secret() -> None:
    spec = cluster_spec(SERVICE)
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        (variable,) = group["template"]["spec"]["containers"][0]["env"]
        assert variable["name"] == TOKEN_VARIABLE
        assert "secretKeyRef" in variable["valueFrom"]


@pytest.mark.parametrize("name", FILES)
def test_all_32_gpus_are_there_from_the_start(name: str) -> None:
    (workers,) = cluster_spec(name)["workerGroupSpecs"]
    assert workers["replicas"] == workers["minReplicas"] == workers["maxReplicas"] == 4
    limits = workers["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert limits["nvidia.com/gpu"] == 8


def test_tensorboard_is_on_loopback() -> None:
    board = cluster_spec(FILES[0])["headGroupSpec"]["template"]["spec"]["containers"][1]["command"]
    assert board[board.index("--host") + 1] == "127.0.0.1"

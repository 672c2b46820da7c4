"""Several copies of the server behind one address, under Ray Serve: on this machine, or on a cluster by KubeRay.

Each replica is the same application with its own models, engine and decoders. Ray Serve balances requests, replaces
replicas that die, and drains those that it stops.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from melanoma_dist.app.server.api import build_app
from melanoma_dist.app.server.service import start_service
from melanoma_dist.config.hardware import HardwareConfig
from melanoma_dist.config.serve import TOKEN_VARIABLE, ServeConfig
from melanoma_dist.distributed.cluster import joined
from melanoma_dist.errors import ClusterError, ConfigError
from melanoma_dist.inference.trained_run import open_trained_run
from melanoma_dist.signals import defer_interrupt, stop_requested

# By default Ray Serve gives up on its proxy if a busy machine does not start it within 15 seconds.
os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")

try:
    from ray import serve
    from ray.serve.config import HTTPOptions
except ImportError as error:
    raise ConfigError(
        f"--replicas: more than one needs Ray Serve ({error}). Install it: pip install 'melanoma-dist[serve-cluster]'"
    ) from error

_NAME = "melanoma-dist"
_POLL_S = 0.2
_DRAIN_S = 5  # seconds for answers to leave, after the last request had its time


def serve_replicas(settings: ServeConfig, token: str | None, announce: Callable[[], None]) -> None:
    """Run the replicas on a private Ray cluster until a signal ends them. ``announce()`` tells that they listen."""
    cores = len(os.sched_getaffinity(0))
    threads = settings.decode_threads or max(1, cores // settings.replicas)
    settings = replace(settings, run=settings.run.resolve(), decode_threads=threads)
    hardware = HardwareConfig(gpus=settings.gpus, ranks_per_unit=None if settings.gpus else settings.replicas)
    with joined(hardware), defer_interrupt():
        try:
            _start(settings, token, cores / settings.replicas)
            announce()
            while not stop_requested():
                time.sleep(_POLL_S)
            serve.delete(_NAME)  # replicas answer what they have received
        finally:
            serve.shutdown()


def _start(settings: ServeConfig, token: str | None, cpus: float) -> None:
    """Start the proxy and the replicas. Raises ClusterError unless all of them answer."""
    try:
        serve.start(http_options=HTTPOptions(host=settings.host, port=settings.port))
        serve.run(application(settings, token, cpus), name=_NAME, route_prefix="/")
    except Exception as error:  # Ray raises a dozen kinds
        reason = " ".join(str(error).split())[:300]
        raise ClusterError(
            f"Ray Serve did not start: {reason}. Is the machine busy? One replica needs no Ray."
        ) from error


def application(settings: ServeConfig, token: str | None, cpus: float) -> Any:
    """The application of Ray Serve: the same FastAPI application in each replica, with a share of the GPUs."""

    def build() -> FastAPI:
        service = start_service(open_trained_run(settings.run), settings)
        return build_app(service, settings, token)

    deployment = serve.deployment(
        serve.ingress(build)(),
        name="replica",
        num_replicas=settings.replicas,
        ray_actor_options={"num_cpus": cpus, "num_gpus": settings.gpus / settings.replicas},
        max_ongoing_requests=settings.queue,
        max_queued_requests=settings.queue,
        graceful_shutdown_timeout_s=settings.timeout + _DRAIN_S,
        health_check_timeout_s=settings.timeout,
    )
    return deployment.bind()


def deploy(arguments: dict[str, str]) -> Any:
    """The application that `cluster/kuberay/rayservice.yaml` names. The token comes from MELANOMA_DIST_TOKEN.

    Arguments: ``run``, and optionally ``replicas``, ``gpus``, ``cpus`` of each, and ``allow_hosts`` with commas.
    """
    settings = ServeConfig(
        Path(arguments["run"]),
        host="0.0.0.0",  # noqa: S104  # nosec B104  # of a pod, behind the token
        allow_hosts=tuple(filter(None, arguments.get("allow_hosts", "").split(","))),
        replicas=int(arguments.get("replicas", "1")),
        gpus=int(arguments.get("gpus", "0")),
        audit=True,
    )
    token = settings.token()
    if token is None:
        raise ConfigError(f"{TOKEN_VARIABLE}: is not set. Make a Secret with a token, as in cluster/README.md.")
    return application(settings, token, float(arguments.get("cpus", "1")))

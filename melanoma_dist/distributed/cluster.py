"""The Ray cluster a command runs on: a private one on this machine, or one to join."""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import grpc
import psutil
import ray
from ray._private.services import canonicalize_bootstrap_address_or_die
from ray.core.generated.gcs_service_pb2 import CheckAliveRequest
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub
from ray.exceptions import AuthenticationError

from melanoma_dist import console
from melanoma_dist.config.hardware import HardwareConfig
from melanoma_dist.distributed.folder import own_folder
from melanoma_dist.distributed.plan import Machines
from melanoma_dist.distributed.token import check_token_files, make_own_token
from melanoma_dist.errors import ConfigError, MelanomaDistError
from melanoma_dist.signals import defer_interrupt, install_handlers, record_signal, stop_requested

_RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",  # training is what the machine is there for
    # Ray gives up on processes of its own that a busy machine does not start within half a minute.
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_worker_maximum_startup_concurrency": "16",  # so many processes are meant to start, whatever the cores
}
_DEAF_TO = {signal.SIGTERM, signal.SIGUSR1}  # its processes; Ray itself makes them deaf to Ctrl-C
_STARTS = 3
_PROBE_S = 5.0
_OF_TOKENS = (
    "Set RAY_AUTH_MODE=token, have the cluster's token in ~/.ray/auth_token or in the file that RAY_AUTH_TOKEN_PATH "
    "names, and the cluster's versions of Ray and Python."
)
_OF_OPEN_ONES = "Start it with RAY_AUTH_MODE=token, as cluster/README.md says, or leave --address out."
_STORE = 128 * 2**20  # bytes of Ray's object store, through which next to nothing goes here
_PATIENCE_S = 1.0  # for processes of a cluster that has ended, before they are killed
_OPTIONS: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
# Bitwise repeatable matrix products on GPUs need a fixed workspace.
_WORKER_ENVIRONMENT = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "TOKENIZERS_PARALLELISM": "false"}


@contextmanager
def joined(hardware: HardwareConfig) -> Iterator[Machines]:
    """Join the cluster that ``hardware`` names, or start one; leave or end it afterwards.

    Raises ConfigError when it cannot be reached, is open to everybody or has fewer GPUs than asked for.
    """
    os.environ.update({key: os.environ.get(key, value) for key, value in _RAY.items()})
    environment = {**_WORKER_ENVIRONMENT, "PYTHONPATH": _python_path()}
    with _own(environment) if hardware.address is None else _others(hardware.address, environment):
        machines = alive_machines()
        check_gpus(hardware.gpus, sum(machines.gpus))
        yield machines


@contextmanager
def _own(environment: dict[str, str]) -> Iterator[None]:
    """A private cluster: with a token and a folder of its own, so that it neither meets nor hurts another one here."""
    if elsewhere := os.environ.pop("RAY_ADDRESS", None):
        console.info(f"RAY_ADDRESS ({elsewhere}) is not heeded: without --address, a run has a cluster of its own.")
    os.environ.update(environment)  # which its processes inherit: no runtime environment has to be set up
    make_own_token()
    private: dict[str, Any] = {"address": "local", "include_dashboard": False, "object_store_memory": _STORE}
    with own_folder() as folder:
        try:
            _start(folder, num_cpus=cores(), **private, **_OPTIONS)
            yield
        finally:
            _leave(private=True)


@contextmanager
def _others(address: str, environment: dict[str, str]) -> Iterator[None]:
    check_token_files()
    _join(address, runtime_env={"env_vars": environment}, **_OPTIONS)
    try:
        yield
    finally:
        _leave(private=False)


def _start(folder: Path, **options: Any) -> None:
    """Start a private cluster. Ray waits 30 s for its own processes, too short on a busy machine: three tries.

    Each has a place of its own in ``folder``: the end of the one before may clear its own away late.
    """
    for attempt in range(_STARTS):
        try:
            _init(_temp_dir=str(folder / str(attempt)), **options)
            return
        except Exception as error:  # Ray raises no class of its own here
            _leave(private=True)  # what it had started would be in the way of the next try
            if attempt == _STARTS - 1:
                raise MelanomaDistError(f"Ray could not be started on this machine: {error}") from error
            console.info(f"Ray did not start in time ({error}); trying again")


def _init(**options: Any) -> None:
    """Start or join Ray.

    What is started hears no signal that asks the program to end: batch systems, systemd and `timeout` send it to every
    process of a job, and folds are to save. Ray also takes SIGTERM over, and would end the program its own way: it is
    taken back.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _DEAF_TO)  # what is started inherits it
    try:
        ray.init(**options)
    except SystemExit:
        record_signal(signal.SIGTERM)
        raise KeyboardInterrupt from None
    finally:
        install_handlers()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _join(address: str, **options: Any) -> None:
    """Join a running cluster. Ray alone would take minutes to see that nobody answers at an address."""
    try:
        place = canonicalize_bootstrap_address_or_die(address) if address == "auto" else address
        host, _, port = place.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_S).close()
    except ValueError as error:
        raise ConfigError.of("address", address, "must be auto or HOST:PORT") from error
    except OSError as error:
        remedy = "Start one with `ray start --head` or as cluster/README.md says, and give the address of its head."
        raise ConfigError.of("address", address, f"no Ray cluster answers there ({error})", remedy) from error
    if _is_open(place):
        rule = "the Ray cluster there asks nobody for a token: whoever reaches it runs code on it"
        raise ConfigError.of("address", address, rule, _OF_OPEN_ONES)
    try:
        _init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError, AuthenticationError) as error:
        ray.shutdown()
        raise ConfigError.of(
            "address", address, f"the Ray cluster there cannot be joined ({error})", _OF_TOKENS
        ) from error


def _is_open(address: str) -> bool:
    """Whether the head of a cluster answers one who shows no token."""
    with grpc.insecure_channel(address) as channel:
        try:
            NodeInfoGcsServiceStub(channel).CheckAlive(CheckAliveRequest(), timeout=_PROBE_S)
        except grpc.RpcError:
            return False
    return True


def _leave(private: bool) -> None:
    """Leave the cluster; a private one ends, and with it every process it started, before a signal is heeded."""
    earlier = stop_requested()
    with defer_interrupt():
        started = psutil.Process().children(recursive=True) if private else []
        if private and (node := ray._private.worker._global_node) is not None:
            # Ray would ask one process after the other, and wait a second for each: they are deaf.
            end = node.kill_all_processes
            node.kill_all_processes = lambda **_: end(check_alive=False)
        try:
            ray.shutdown()
        finally:
            install_handlers()  # it has let go of SIGTERM, which would end this process at once
            _end(started)
    if stop_requested() and not earlier:
        raise KeyboardInterrupt


def _end(processes: list[psutil.Process]) -> None:
    """Kill what has not ended after a moment."""
    _, alive = psutil.wait_procs(processes, timeout=_PATIENCE_S)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def check_gpus(wanted: int | None, there: int) -> None:
    """Raise ConfigError unless there are as many GPUs as asked for; None asks for all, and for at least one."""
    found = f"{there} GPU{'' if there == 1 else 's'}"
    if wanted is None and there == 0:
        raise ConfigError("--gpus: there is no GPU here, and none is a choice to be made: --gpus 0 trains on the CPU.")
    if wanted is not None and wanted > there:
        remedy = f"Use --gpus {there}." if there else "Use --gpus 0 to train on the CPU."
        raise ConfigError.of(
            "gpus",
            wanted,
            f"there {'is' if there == 1 else 'are'} only {found}" if there else "there is no GPU here",
            remedy,
        )


def alive_machines() -> Machines:
    """What the nodes of the joined cluster have that are alive now."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return Machines(
        gpus=tuple(int(node.get("GPU", 0)) for node in nodes),
        cores=tuple(int(node.get("CPU", 0)) for node in nodes),
    )


def cores() -> int:
    """Cores this process may use: not all of the machine's inside a container or a batch job."""
    return len(os.sched_getaffinity(0))


def _python_path() -> str:
    """Workers find the package where this process found it, installed or not."""
    here = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")]))

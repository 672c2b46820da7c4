"""The Ray cluster a command runs on: a private one on this machine, or one to join."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import ray
from ray._private.services import canonicalize_bootstrap_address_or_die
from ray.exceptions import AuthenticationError

from melanoma_dist.config import HardwareConfig
from melanoma_dist.dist.plan import Machines
from melanoma_dist.errors import ConfigError, MelanomaDistError
from melanoma_dist.log import say
from melanoma_dist.terminate import heed_signals, interrupted_by

_RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",  # training is what the machine is there for
    "RAY_worker_maximum_startup_concurrency": "16",  # so many processes are meant to start, whatever the cores
}
_DEAF_TO = {signal.SIGTERM, signal.SIGUSR1}  # its processes; Ray itself makes them deaf to Ctrl-C
_STARTS = 3
_PROBE_S = 5.0
_OF_TOKENS = (
    "Set RAY_AUTH_MODE=token, have the cluster's token in ~/.ray/auth_token or in the file that RAY_AUTH_TOKEN_PATH "
    "names, and the cluster's versions of Ray and Python."
)
_PATIENCE_S = 1.0  # for processes of a cluster that has ended, before they are killed
# Bitwise repeatable matrix products on GPUs need a fixed workspace.
_WORKER_ENVIRONMENT = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "TOKENIZERS_PARALLELISM": "false"}


@contextmanager
def joined(hardware: HardwareConfig) -> Iterator[Machines]:
    """Join the cluster that ``hardware`` names, or start one; leave or end it afterwards.

    Raises ConfigError when it cannot be reached or has fewer GPUs than asked for.
    """
    os.environ.update({key: os.environ.get(key, value) for key, value in _RAY.items()})
    environment = {**_WORKER_ENVIRONMENT, "PYTHONPATH": _python_path()}
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if hardware.address is None:
            # Processes of a private cluster inherit the environment: no runtime environment has to be set up.
            os.environ.update(environment)
            _make_token()
            _start(address="local", include_dashboard=False, num_cpus=_cores(), **options)
        else:
            _join(hardware.address, runtime_env={"env_vars": environment}, **options)
        machines = alive_machines()
        check_gpus(hardware.gpus, sum(machines.gpus))
        yield machines
    finally:
        _leave(private=hardware.address is None)


def _start(**options: Any) -> None:
    """Start a private cluster. Ray waits 30 s for its own processes, too short on a busy machine: three tries."""
    for attempt in range(_STARTS):
        try:
            _init(**options)
            return
        except Exception as error:  # Ray raises no class of its own here
            _leave(private=True)  # what it had started would be in the way of the next try
            if attempt == _STARTS - 1:
                raise MelanomaDistError(f"Ray could not be started on this machine: {error}") from error
            say(f"Ray did not start in time ({error}); trying again")


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
        interrupted_by(signal.SIGTERM)
        raise KeyboardInterrupt from None
    finally:
        heed_signals()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _make_token() -> None:
    """Make the token that guards private clusters, if there is none, for its owner's eyes: Ray's own is for all."""
    path = Path.home() / ".ray" / "auth_token"
    if path.exists() or "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ:
        return
    with suppress(OSError):  # no home to write in: Ray says what it needs
        path.parent.mkdir(mode=0o700, exist_ok=True)
        handle, aside = tempfile.mkstemp(dir=path.parent)  # 0600
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32))
        try:
            os.link(aside, path)  # fails where another process was first
        finally:
            os.unlink(aside)


def _join(address: str, **options: Any) -> None:
    """Join a running cluster. Ray alone would take minutes to see that nobody answers at an address."""
    try:
        host, _, port = (canonicalize_bootstrap_address_or_die(address) if address == "auto" else address).rpartition(
            ":"
        )
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_S).close()
    except ValueError as error:
        raise ConfigError.of("address", address, "must be auto or HOST:PORT") from error
    except OSError as error:
        remedy = "Start one with `ray start --head` or as cluster/README.md says, and give the address of its head."
        raise ConfigError.of("address", address, f"no Ray cluster answers there ({error})", remedy) from error
    try:
        _init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError, AuthenticationError) as error:
        ray.shutdown()
        raise ConfigError.of(
            "address", address, f"the Ray cluster there cannot be joined ({error})", _OF_TOKENS
        ) from error


def _leave(private: bool) -> None:
    """Leave the cluster; a private one ends, and with it every process it started."""
    started = psutil.Process().children(recursive=True) if private else []
    if private and (node := ray._private.worker._global_node) is not None:
        # Ray would ask one process after the other, and wait a second for each: they are deaf.
        end = node.kill_all_processes
        node.kill_all_processes = lambda **_: end(check_alive=False)
    ray.shutdown()
    _, alive = psutil.wait_procs(started, timeout=_PATIENCE_S)
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


def _cores() -> int:
    """Cores this process may use: not all of the machine's inside a container or a batch job."""
    return len(os.sched_getaffinity(0))


def _python_path() -> str:
    """Workers find the package where this process found it, installed or not."""
    here = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH", "")]))

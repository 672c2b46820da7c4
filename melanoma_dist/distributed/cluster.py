"""The Ray cluster of a command: a private one on this machine, or an existing one to join."""

from __future__ import annotations

import logging
import os
import signal
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import grpc
import psutil
import ray
from ray._private.services import canonicalize_bootstrap_address_or_die
from ray.core.generated.gcs_service_pb2 import CheckAliveRequest
from ray.core.generated.gcs_service_pb2_grpc import NodeInfoGcsServiceStub
from ray.exceptions import AuthenticationError
from ray.job_config import JobConfig

from melanoma_dist import console
from melanoma_dist.config.hardware import HardwareConfig
from melanoma_dist.distributed.busy_start import busy, patience
from melanoma_dist.distributed.capacity import alive_machines
from melanoma_dist.distributed.demand import machines_to_plan_for
from melanoma_dist.distributed.folder import own_folder
from melanoma_dist.distributed.gpus import check_gpus
from melanoma_dist.distributed.plan import Machines
from melanoma_dist.distributed.token import check_token_files, make_own_token
from melanoma_dist.errors import ClusterError, ConfigError
from melanoma_dist.signals import defer_interrupt, install_handlers, record_signal, stop_requested

_RAY = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_worker_niceness": "0",  # training is the main work of the machine
    # By default Ray gives up on its own processes if a busy machine does not start them within half a minute.
    "RAY_agent_register_timeout_ms": "300000",
    "RAY_worker_register_timeout_seconds": "300",
    "RAY_worker_maximum_startup_concurrency": "16",  # processes may start side by side, on few cores too
}
_BLOCKED = {signal.SIGTERM, signal.SIGUSR1}  # in the cluster's processes; Ray itself blocks Ctrl-C there
_PACKAGES = str(Path(__file__).resolve().parents[2])  # the folder of this package
_PAUSES = (5, 20, 60)  # seconds before another try to start Ray
_PROBE_S = 5.0
_JOIN_REMEDY = (
    "Set RAY_AUTH_MODE=token, put the cluster's token into ~/.ray/auth_token or into the file RAY_AUTH_TOKEN_PATH, and "
    "use the cluster's versions of Ray and Python."
)
_OPEN_REMEDY = "Start it with RAY_AUTH_MODE=token as in cluster/README.md, or leave --address out."
_STORE = 128 * 2**20  # bytes of Ray's object store; only small objects pass through it here
_EXIT_S = 1.0  # for processes of a stopped cluster to exit before they are killed
_OPTIONS: dict[str, object] = {"log_to_driver": False, "logging_level": logging.ERROR}
# Bitwise repeatable matrix products on GPUs need a fixed workspace.
_WORKER_ENVIRONMENT = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8", "TOKENIZERS_PARALLELISM": "false"}


@contextmanager
def joined(hardware: HardwareConfig) -> Iterator[Machines]:
    """Join the cluster at ``hardware.address``, or start a private one. Leave or stop it at the end.

    If a private one does not start, units of one CPU rank do without: then Ray is not initialized in the context.

    Raises ConfigError if the cluster cannot be reached, accepts unauthenticated requests or has too few GPUs, and
    ClusterError if a private one does not start.
    """
    os.environ.update({key: os.environ.get(key, value) for key, value in _RAY.items()})
    environment = {**_WORKER_ENVIRONMENT, "PYTHONPATH": _python_path()}
    needed = hardware.gpus != 0 or (hardware.ranks_per_unit or 1) > 1
    with _private(environment, needed) if hardware.address is None else _shared(hardware.address, environment):
        machines = _machines(hardware) if ray.is_initialized() else Machines((0,), (cores(),))
        check_gpus(hardware.gpus, sum(machines.gpus))
        yield machines


def _machines(hardware: HardwareConfig) -> Machines:
    """The machines to plan for: on a cluster that grows, also those that the flags ask for."""
    if hardware.address is None or not hardware.gpus:
        return alive_machines()
    return machines_to_plan_for(hardware.gpus, hardware.gpus_per_unit)


@contextmanager
def _private(environment: dict[str, str], needed: bool) -> Iterator[None]:
    """A private cluster with its own token and folder, so that several of them run side by side on a machine.

    ``needed``: its failure to start is an error.
    """
    if address := os.environ.pop("RAY_ADDRESS", None):
        console.info(f"RAY_ADDRESS={address} is ignored: without --address, a run starts its own cluster.")
    os.environ.update(environment)  # inherited by the processes, which need no runtime environment then
    # By default 30. Not for all: a command that joins with a wrong token would wait for so long too.
    os.environ.setdefault("RAY_gcs_server_port_wait_time_s", "120")
    make_own_token()
    private: dict[str, object] = {"address": "local", "include_dashboard": False, "object_store_memory": _STORE}
    with own_folder() as folder:
        before, started = _children(), set[psutil.Process]()
        try:
            try:
                _start(folder, _PAUSES if needed else (), num_cpus=cores(), **private, **_OPTIONS)
            except ClusterError as error:
                if needed:
                    raise
                console.info(f"{error} One CPU rank needs no cluster: the folds train without Ray.")
            finally:
                started = _children() - before
            yield
        finally:
            _leave(started)


@contextmanager
def _shared(address: str, environment: dict[str, str]) -> Iterator[None]:
    check_token_files()
    _join(address, runtime_env={"env_vars": environment}, **_OPTIONS)
    try:
        yield
    finally:
        _leave(None)


def _start(folder: Path, pauses: tuple[int, ...], **options: object) -> None:
    """Start a private cluster. Tries again after each of the ``pauses``, in seconds, then raises ClusterError.

    Every try has its own place in ``folder``, because the one before may remove its files late.
    """
    for pause in (*pauses, None):
        before = _children()
        try:
            with patience():
                _init(_temp_dir=tempfile.mkdtemp(dir=folder), **options)
            return
        except Exception as error:  # Ray raises no specific class here
            _leave(_children() - before)  # stops processes that would block the next try
            if pause is None:
                raise ClusterError(f"Ray did not start on this machine: {error} {busy()}".strip()) from error
            console.info(f"Ray did not start ({error}). {busy()} The next try is in {pause} s.")
            time.sleep(pause)


def _init(**options: object) -> None:
    """Start or join Ray.

    The started processes ignore the signals that stop the program: batch systems, systemd and `timeout` send them to
    every process of a job, but the folds must save first. Ray also replaces the handler of SIGTERM, and would exit at
    once: our handlers are installed again.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _BLOCKED)  # inherited by the started processes
    try:
        ray.init(job_config=JobConfig(_py_driver_sys_path=_SearchPath()), **options)
    except SystemExit:
        record_signal(signal.SIGTERM)
        raise KeyboardInterrupt from None
    finally:
        install_handlers()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _join(address: str, **options: object) -> None:
    """Join a running cluster. Probes the address first: Ray alone takes minutes to fail at a wrong one."""
    try:
        place = canonicalize_bootstrap_address_or_die(address) if address == "auto" else address
        host, _, port = place.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), timeout=_PROBE_S).close()
    except ValueError as error:
        raise ConfigError.of("address", address, "must be auto or HOST:PORT") from error
    except OSError as error:
        remedy = "Start one with `ray start --head` or as in cluster/README.md, and give the address of its head node."
        raise ConfigError.of("address", address, f"no Ray cluster answers there ({error})", remedy) from error
    if _is_open(place):
        rule = "the Ray cluster there accepts requests without a token: everybody who reaches it can run code on it"
        raise ConfigError.of("address", address, rule, _OPEN_REMEDY)
    try:
        _init(address=address, **options)
    except (ConnectionError, ValueError, RuntimeError, AuthenticationError) as error:
        ray.shutdown()
        raise ConfigError.of(
            "address", address, f"the Ray cluster there cannot be joined ({error})", _JOIN_REMEDY
        ) from error


def _is_open(address: str) -> bool:
    """Whether the head node accepts unauthenticated requests."""
    with grpc.insecure_channel(address) as channel:
        try:
            NodeInfoGcsServiceStub(channel).CheckAlive(CheckAliveRequest(), timeout=_PROBE_S)
        except grpc.RpcError:
            return False
    return True


def _children() -> set[psutil.Process]:
    """The processes that this one started and that still run."""
    return set(psutil.Process().children())


def _leave(started: set[psutil.Process] | None) -> None:
    """Leave the cluster. Stops a private one with all its processes, even if a signal arrives meanwhile.

    ``started``: the processes of a private cluster, None for another one. This process may have other children: those
    of a notebook, or Python's tracker of shared memory.
    """
    before = stop_requested()
    with defer_interrupt():
        processes = [] if started is None else _families(started)
        if started is not None and (node := ray._private.worker._global_node) is not None:
            # Ray would send SIGTERM to one process after the other and wait a second for each: they ignore it.
            kill = node.kill_all_processes
            node.kill_all_processes = lambda **_: kill(check_alive=False)
        try:
            ray.shutdown()
        finally:
            install_handlers()  # Ray restored the default of SIGTERM, which would end this process at once
            _end(processes)
    if stop_requested() and not before:
        raise KeyboardInterrupt


def _families(processes: set[psutil.Process]) -> list[psutil.Process]:
    """The processes and all that they started."""
    families = list(processes)
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            families += process.children(recursive=True)
    return families


def _end(processes: list[psutil.Process]) -> None:
    """Kill the processes that do not exit within a moment."""
    _, alive = psutil.wait_procs(processes, timeout=_EXIT_S)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def cores() -> int:
    """Cores that this process may use: inside a container or a batch job, not all of the machine."""
    return len(os.sched_getaffinity(0))


class _SearchPath(list[str]):
    """The folders that workers search first for modules. The last one wins, and is that of this very package.

    Ray adds the current folder, where another version of the package may lie: workers would train with its code.
    """

    def __init__(self) -> None:
        super().__init__([_PACKAGES])

    def extend(self, folders: Iterable[str]) -> None:
        super().extend([*folders, _PACKAGES])


def _python_path() -> str:
    """The PYTHONPATH with which workers import this very package, installed or not."""
    return os.pathsep.join(filter(None, [_PACKAGES, os.environ.get("PYTHONPATH", "")]))

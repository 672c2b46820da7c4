"""The start of Ray on a busy machine, where Ray gives up on its own processes. No setting of Ray covers these limits.

The raylet starts two Python programs, its agents, and ends itself unless they have written the ports that they chose to
files within 15 seconds. It does not wait for ports that it is given. And Ray waits 30 seconds for the raylet.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from subprocess import Popen  # nosec B404  # for the type alone
from typing import Any

from ray._private import parameter, services
from ray._private.ray_constants import PROCESS_TYPE_RAYLET

_PORTS = ("runtime_env_agent_port", "metrics_agent_port", "metrics_export_port", "dashboard_agent_listen_port")
_RAYLET_S = 180.0  # to wait for a raylet that lives
_POLL_S = 0.2


@contextmanager
def patience() -> Iterator[None]:
    """Within the context, a cluster that Ray starts here has its agents' ports in advance, and time for its raylet."""
    ports = dict(zip(_PORTS, _free_ports(len(_PORTS)), strict=True))
    raylets: list[Popen[bytes]] = []
    make_parameters, start_process, get_node = parameter.RayParams, services.start_ray_process, services.get_node

    def with_ports(*arguments: object, **options: object) -> object:
        return make_parameters(*arguments, **{**options, **ports})

    def start(command: list[str], process_type: str, **options: object) -> Any:
        if process_type != PROCESS_TYPE_RAYLET:
            return start_process(command, process_type, **options)
        flag = f"--{_PORTS[-1]}={ports[_PORTS[-1]]}"  # Ray passes the other ports to the raylet itself
        started = start_process([*command, flag], process_type, **options)
        raylets.append(started.process)
        return started

    def wait_for_node(*arguments: object) -> object:
        limit = time.monotonic() + _RAYLET_S
        while True:
            try:
                return get_node(*arguments)
            except RuntimeError:  # it has not registered
                if time.monotonic() > limit or any(raylet.poll() is not None for raylet in raylets):
                    raise
                time.sleep(_POLL_S)

    parameter.RayParams, services.start_ray_process, services.get_node = with_ports, start, wait_for_node
    try:
        yield
    finally:
        parameter.RayParams, services.start_ray_process, services.get_node = make_parameters, start_process, get_node


def busy() -> str:
    """A sentence about the load of this machine, or no text if every process has a core."""
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    return f"The machine is busy: load {load:.0f} on {cores} cores." if load > cores else ""


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in sockets]

"""A Ray cluster on this machine for `chaos.py`: a head that trains nothing, and nodes of one core that can be lost.

As a program it runs the cluster: it prints its address, adds a node for every line of its input, and stops at the end
of the input. `Nodes` starts and controls it.
"""

from __future__ import annotations

import os
import secrets
import subprocess  # nosec B404  # for the program itself
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import psutil

_RAY = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
_COUNT = 2
_STARTS = 10  # Ray waits 30 s for its own processes, too short on a busy machine


class Nodes:
    """A context in which the cluster runs, protected by a token of its own."""

    def __init__(self, place: Path, environment: dict[str, str]) -> None:
        """Write the token into the folder ``place``. All processes of the cluster get ``environment``."""
        token = place / "token"
        token.touch(mode=0o600)
        token.write_text(secrets.token_hex(32))
        self.secret = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        self._environment = {**environment, **self.secret}
        self._log = place / "nodes.log"
        self.address = ""

    def __enter__(self) -> Nodes:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603  # nosec B603  # this file
                [sys.executable, __file__],
                env=self._environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        self.address = self._read_line("address")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(subprocess.TimeoutExpired):
            self._process.communicate(timeout=60)
        self._process.kill()

    def lose(self, member: psutil.Process) -> None:
        """Kill the node of a process with everything on it, and add another node.

        Raises psutil.NoSuchProcess if the process runs on no node any more.
        """
        raylet = next((parent for parent in member.parents() if parent.name() == "raylet"), None)
        if raylet is None:
            raise psutil.NoSuchProcess(member.pid)
        for each in (raylet, *raylet.children(recursive=True)):
            with suppress(psutil.Error):
                each.kill()
        if (nodes := self._process.stdin) is not None:
            nodes.write("add\n")
            nodes.flush()

    def _read_line(self, key: str) -> str:
        for line in self._process.stdout or ():
            word, _, value = line.strip().partition(" ")
            if word == key:
                return value
        raise RuntimeError(f"the cluster did not start: {self._log.read_text()}")


def main() -> None:
    """Run the cluster."""
    os.environ |= {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_worker_niceness": "0",
        "RAY_worker_register_timeout_seconds": "300",
    }
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    _start(lambda: cluster.add_node(num_cpus=0, include_dashboard=False, include_log_monitor=False, no_monitor=True))
    for _ in range(_COUNT):
        _start(lambda: cluster.add_node(num_cpus=1))
    print("address", cluster.address, flush=True)
    for _ in sys.stdin:
        _start(lambda: cluster.add_node(wait=False, num_cpus=1))
    cluster.shutdown()


def _start(node: Callable[[], object]) -> None:
    for attempt in range(_STARTS):
        try:
            node()
            return
        except Exception:  # Ray raises plain exceptions here
            if attempt == _STARTS - 1:
                raise


if __name__ == "__main__":
    main()

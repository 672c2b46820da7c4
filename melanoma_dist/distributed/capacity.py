"""What the cluster has and how many units it can run at this moment: nodes are lost, and come back."""

from __future__ import annotations

import time

import ray

from melanoma_dist.distributed.plan import Layout, Machines, capacity
from melanoma_dist.errors import TrainingError

_REFRESH_S = 3.0
_NO_CAPACITY_S = 600.0  # how long to wait for a node to come back


def alive_machines() -> Machines:
    """The GPUs and cores of the cluster's nodes that are alive now."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return Machines(
        gpus=tuple(int(node.get("GPU", 0)) for node in nodes),
        cores=tuple(int(node.get("CPU", 0)) for node in nodes),
    )


class Capacity:
    """The number of units that the cluster can run, refreshed every few seconds."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._units, self._refreshed = layout.side_by_side, time.monotonic()

    def invalidate(self) -> None:
        """Discard the current number, after a failure that may have been a lost node."""
        self._refreshed = float("-inf")

    def units(self, waiting: bool) -> int:
        """The number of units. ``waiting``: no unit is running, so wait until there is capacity for one.

        Raises TrainingError if there is none for ten minutes.
        """
        limit = time.monotonic() + _NO_CAPACITY_S
        while time.monotonic() - self._refreshed > _REFRESH_S or (waiting and self._units == 0):
            self._units = min(self._layout.side_by_side, capacity(alive_machines(), self._layout))
            self._refreshed = time.monotonic()
            if self._units or not waiting:
                break
            if time.monotonic() > limit:
                raise TrainingError(
                    "No node of the cluster has capacity for a fold. Finished epochs are saved: "
                    "add nodes, and run the same command again."
                )
            time.sleep(_REFRESH_S)
        return self._units

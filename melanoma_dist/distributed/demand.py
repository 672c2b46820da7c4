"""Demand for nodes that an autoscaler sees: pending placement groups, one for each unit that has no room yet.

Ray's autoscaler starts nodes for placement groups that fit nowhere. They belong to this command, and go with it even if
it is killed. (``ray.autoscaler.sdk.request_resources`` would stay, and a command would replace another one's request.)
"""

from __future__ import annotations

import time
from collections.abc import Iterable

from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group

from melanoma_dist import console
from melanoma_dist.distributed.autoscaler import can_grow
from melanoma_dist.distributed.capacity import alive_machines
from melanoma_dist.distributed.plan import Layout, Machines, grown
from melanoma_dist.errors import ClusterError

_POLL_S = 3.0
_FIRST_NODE_S = 1800.0  # for a cloud to start a node with a GPU, and to set it up


class Demand:
    """The units of a layout that wait for nodes."""

    def __init__(self, layout: Layout) -> None:
        gpu = {"GPU": layout.gpu_share} if layout.gpu else {}
        self._bundles = [{"CPU": layout.cores, **gpu}] * layout.ranks
        self._can_grow = layout.gpu and can_grow()  # --gpus says how far; for cores, no flag does
        self._groups: list[PlacementGroup] = []

    def expect(self, units: int, room: int) -> bool:
        """Demand nodes for those of ``units`` units for which the cluster has no ``room``.

        Returns whether the cluster grows, and has more room than the units need.
        """
        missing = max(0, units - room) if self._can_grow else 0
        if missing != len(self._groups):
            folds = f"{missing} fold{'s' if missing > 1 else ''}"
            console.info(
                f"{folds} wait for more nodes, which the cluster's autoscaler is asked for; {room} have room now"
                if missing
                else f"the cluster has room for {room} at a time"
            )
        while len(self._groups) < missing:
            self._groups.append(placement_group(self._bundles, strategy="STRICT_PACK"))
        while len(self._groups) > missing:
            # One that has got its place holds it: the unit is to have it.
            placed = next(filter(_is_placed, self._groups), self._groups[0])
            self._groups.remove(placed)
            remove_placement_group(placed)
        return self._can_grow and units < room

    def withdraw(self) -> None:
        """Demand nothing any more, so that the cluster shrinks."""
        _remove(self._groups)
        self._groups = []


def machines_to_plan_for(gpus: int, per_unit: float | None) -> Machines:
    """The machines of the cluster, and those that its autoscaler is to add until there are ``gpus`` GPUs.

    If the cluster has no GPU yet, it waits for the first node with one: its size decides how units are laid out.
    Without an autoscaler, these are just the machines of the cluster. Raises ClusterError if no GPU joins.
    """
    machines = alive_machines()
    if sum(machines.gpus) >= gpus or not can_grow():
        return machines
    if not any(machines.gpus):
        machines = _wait_for_gpu(gpus, max(1, int(per_unit or 1)))
    return grown(machines, gpus)


def _wait_for_gpu(gpus: int, ranks: int) -> Machines:
    console.info(f"waiting for the first GPU: the cluster has none, and its autoscaler is asked for {gpus}")
    limit = time.monotonic() + _FIRST_NODE_S
    groups = [placement_group([{"GPU": 1}] * ranks, strategy="STRICT_PACK") for _ in range(max(1, gpus // ranks))]
    try:
        while not any((machines := alive_machines()).gpus):
            if time.monotonic() > limit:
                raise ClusterError(
                    f"No node with a GPU joined the cluster in {_FIRST_NODE_S / 60:.0f} minutes. `ray status` says "
                    "what its autoscaler tries, and which quota or limit (max_workers) is reached."
                )
            time.sleep(_POLL_S)
    finally:
        _remove(groups)
    return machines


def _is_placed(group: PlacementGroup) -> bool:
    return bool(placement_group_table(group)["state"] == "CREATED")


def _remove(groups: Iterable[PlacementGroup]) -> None:
    for group in groups:
        remove_placement_group(group)

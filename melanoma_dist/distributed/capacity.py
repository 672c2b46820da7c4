"""For how many units the cluster has room now: nodes go, and come back."""

from __future__ import annotations

import time

from melanoma_dist.distributed.cluster import alive_machines
from melanoma_dist.distributed.plan import Layout, capacity
from melanoma_dist.errors import TrainingError

_LOOK_S = 3.0  # between looks at what the cluster has
_NO_ROOM_S = 600.0  # to wait for a node to come back


class Capacity:
    """For how many units there is room now."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._units, self._looked = layout.side_by_side, time.monotonic()

    def look_again(self) -> None:
        """What was seen last may be wrong."""
        self._looked = float("-inf")

    def units(self, waiting: bool) -> int:
        """Looks every few seconds. ``waiting``: nothing runs, so wait until there is room for one.

        Raises TrainingError when there is none for minutes.
        """
        limit = time.monotonic() + _NO_ROOM_S
        while time.monotonic() - self._looked > _LOOK_S or (waiting and self._units == 0):
            self._units = min(self._layout.side_by_side, capacity(alive_machines(), self._layout))
            self._looked = time.monotonic()
            if self._units or not waiting:
                break
            if time.monotonic() > limit:
                raise TrainingError("The cluster has no node left that has room for a fold. Finished epochs are kept.")
            time.sleep(_LOOK_S)
        return self._units

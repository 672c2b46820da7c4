"""Units start only while the cluster has capacity for them."""

from __future__ import annotations

import pytest

from melanoma_dist.distributed import capacity as room
from melanoma_dist.distributed.plan import Layout, Machines
from melanoma_dist.errors import TrainingError

LAYOUT = Layout(2, 4, True, 8.0, "")  # four units of two GPUs


def capacity_over(monkeypatch: pytest.MonkeyPatch, *machines: Machines) -> room.Capacity:
    """A capacity that sees one of ``machines`` at each refresh."""
    snapshots = iter(machines)
    monkeypatch.setattr(room, "alive_machines", lambda: next(snapshots))
    monkeypatch.setattr(room, "_REFRESH_S", 0.0)
    return room.Capacity(LAYOUT)


def test_a_lost_node_reduces_the_capacity_until_it_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    both, one, more = Machines((4, 4), (8, 8)), Machines((4,), (8,)), Machines((8, 8), (8, 8))
    capacity = capacity_over(monkeypatch, both, one, both, more)
    assert [capacity.units(waiting=False) for _ in range(4)] == [4, 2, 4, 4]  # never more than planned


def test_it_waits_for_a_node_while_no_unit_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    none = Machines((), ())
    assert capacity_over(monkeypatch, none, none, Machines((2,), (8,))).units(waiting=True) == 1


def test_it_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "_NO_CAPACITY_S", 0.0)
    with pytest.raises(TrainingError, match=r"has capacity for a fold\. Finished epochs are saved"):
        capacity_over(monkeypatch, *[Machines((), ())] * 3).units(waiting=True)


def test_it_refreshes_every_few_seconds_and_after_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    capacity = capacity_over(monkeypatch, Machines((2,), (8,)))
    monkeypatch.setattr(room, "_REFRESH_S", 60.0)
    assert capacity.units(waiting=False) == 4
    capacity.invalidate()
    assert [capacity.units(waiting=False) for _ in range(3)] == [1, 1, 1]

"""Units start only where the cluster has room now."""

from __future__ import annotations

import pytest

from melanoma_dist.distributed import capacity as place
from melanoma_dist.distributed.plan import Layout, Machines
from melanoma_dist.errors import TrainingError

LAYOUT = Layout(2, 4, True, 8.0, "")  # four units of two GPUs


def room_with(monkeypatch: pytest.MonkeyPatch, *found: Machines) -> place.Capacity:
    looks = iter(found)
    monkeypatch.setattr(place, "alive_machines", lambda: next(looks))
    monkeypatch.setattr(place, "_LOOK_S", 0.0)
    return place.Capacity(LAYOUT)


def test_a_lost_node_takes_its_units_along_and_gives_them_back(monkeypatch: pytest.MonkeyPatch) -> None:
    both, one, more = Machines((4, 4), (8, 8)), Machines((4,), (8,)), Machines((8, 8), (8, 8))
    room = room_with(monkeypatch, both, one, both, more)
    assert [room.units(waiting=False) for _ in range(4)] == [4, 2, 4, 4]  # never more than was planned


def test_where_nothing_runs_it_waits_for_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    none = Machines((), ())
    assert room_with(monkeypatch, none, none, Machines((2,), (8,))).units(waiting=True) == 1


def test_it_does_not_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place, "_NO_ROOM_S", 0.0)
    with pytest.raises(TrainingError, match=r"no node left that has room for a fold\. Finished epochs are kept"):
        room_with(monkeypatch, *[Machines((), ())] * 3).units(waiting=True)


def test_it_looks_only_every_few_seconds_unless_something_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    room = room_with(monkeypatch, Machines((2,), (8,)))
    monkeypatch.setattr(place, "_LOOK_S", 60.0)
    assert room.units(waiting=False) == 4
    room.look_again()
    assert [room.units(waiting=False) for _ in range(3)] == [1, 1, 1]

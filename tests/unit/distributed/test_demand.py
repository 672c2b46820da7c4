"""Units that wait for nodes are demanded from the autoscaler, and only those."""

from __future__ import annotations

from typing import Any

import pytest

from melanoma_dist.distributed import demand as module
from melanoma_dist.distributed.demand import Demand, machines_to_plan_for
from melanoma_dist.distributed.plan import Layout, Machines

LAYOUT = Layout(2, 4, True, 8.0, "")  # four units of two GPUs


@pytest.fixture
def groups(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The placement groups of a cluster that grows: bundles and strategy, and whether they have a place."""
    existing: list[Any] = []

    def place(bundles: list[dict[str, float]], strategy: str) -> dict[str, Any]:
        existing.append({"bundles": bundles, "strategy": strategy, "state": "PENDING"})
        group: dict[str, Any] = existing[-1]
        return group

    monkeypatch.setattr(module, "can_grow", lambda: True)
    monkeypatch.setattr(module, "placement_group", place)
    monkeypatch.setattr(module, "placement_group_table", lambda group: group)
    monkeypatch.setattr(
        module,
        "remove_placement_group",
        lambda group: existing.pop(next(i for i, e in enumerate(existing) if e is group)),
    )
    return existing


def test_each_unit_without_room_is_a_group_until_there_is_room(groups: list[Any]) -> None:
    demand = Demand(LAYOUT)
    assert not demand.expect(4, room=1)
    assert [group["bundles"] for group in groups] == [[{"CPU": 8.0, "GPU": 1.0}] * 2] * 3
    assert {group["strategy"] for group in groups} == {"STRICT_PACK"}
    groups[1]["state"] = "CREATED"  # a node joined: its place is for the unit
    demand.expect(4, room=2)
    assert [group["state"] for group in groups] == ["PENDING"] * 2
    assert demand.expect(1, room=2)  # the last unit: the cluster may shrink
    assert groups == []
    demand.expect(4, room=2)
    demand.withdraw()
    assert groups == []


def test_a_cluster_that_does_not_grow_is_asked_for_nothing(groups: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "can_grow", lambda: False)
    assert not Demand(LAYOUT).expect(4, room=0)
    assert groups == []
    small = Machines((2,), (8,))
    monkeypatch.setattr(module, "alive_machines", lambda: small)
    assert machines_to_plan_for(8, None) == small


def test_the_plan_waits_for_the_first_gpu_and_counts_those_to_come(
    groups: list[Any], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    snapshots = iter([Machines((0,), (4,)), Machines((0,), (4,)), Machines((0, 4), (4, 32))])
    monkeypatch.setattr(module, "alive_machines", lambda: next(snapshots))
    monkeypatch.setattr(module, "_POLL_S", 0.0)
    assert machines_to_plan_for(8, 2) == Machines((0, 4, 4), (4, 32, 32))
    assert groups == []
    assert (
        "waiting for the first GPU: the cluster has none, and its autoscaler is asked for 8" in capfd.readouterr().out
    )

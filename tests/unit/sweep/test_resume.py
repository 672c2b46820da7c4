from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from melanoma_dist.artifacts import run_folder
from melanoma_dist.distributed import cluster
from melanoma_dist.distributed.plan import Layout, Machines
from melanoma_dist.errors import ConfigError
from melanoma_dist.sweep import command

from ..samples import config


def test_other_code_is_refused_before_any_configuration_pays_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_folder.write_json(
        tmp_path / "sweep.json", {"identity": {}, "made_with": {**run_folder.made_with(), "code": "other"}}
    )
    settings: Any = SimpleNamespace(run=config(), budget_seconds=lambda: None)
    ground: Any = SimpleNamespace(folder=tmp_path)
    conductor: Any = SimpleNamespace(over=lambda: False)
    journal: Any = SimpleNamespace(records=[])
    monkeypatch.setattr(cluster, "joined", lambda *_: pytest.fail("it trains"))
    with pytest.raises(ConfigError, match=r"begun with other code or libraries \(code: other then.*--accept-changes"):
        command._conduct(settings, ground, conductor, journal)


@pytest.mark.parametrize(
    ("began", "now", "nodes", "threads", "side_by_side"),
    [
        (4.0, Layout(1, 8, False, 1.0, ""), (8,), 4, 2),  # more configurations now, and a core for each
        (1.0, Layout(1, 2, False, 4.0, ""), (8,), 1, 2),
        (2.0, Layout(1, 4, False, 2.0, ""), (8,), 2, 4),
        (16.0, Layout(1, 2, False, 4.0, ""), (8,), 4, 2),  # no node has so many: the units themselves refuse
        (4.0, Layout(1, 8, True, 1.0, ""), (8,), 1, 8),  # on GPUs, threads decide nothing
    ],
)
def test_units_in_training_keep_the_threads_they_began_with(
    began: float, now: Layout, nodes: tuple[int, ...], threads: int, side_by_side: int
) -> None:
    session = {"what": "session", "device": "CPU core", "per_unit": began, "ranks": 1}
    journal: Any = SimpleNamespace(records=[session, {"what": "start"}])
    conductor: Any = SimpleNamespace(running={"a unit": None})
    found = command._on_cores_as_begun(now, Machines((0,) * len(nodes), nodes), journal, conductor)
    assert (found.threads, found.side_by_side) == (threads, side_by_side)
    conductor.running.clear()
    assert command._on_cores_as_begun(now, Machines((0,), nodes), journal, conductor) == now

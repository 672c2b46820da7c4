from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from melanoma_dist.artifacts.run_record import RunRecord, current_environment, write_run_record
from melanoma_dist.distributed import cluster
from melanoma_dist.distributed.plan import Layout, Machines
from melanoma_dist.errors import ConfigError
from melanoma_dist.sweep import command
from melanoma_dist.sweep.journal import SessionStarted, UnitStarted

from ..samples import config


def test_other_code_is_refused_before_it_fails_a_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    environment = replace(current_environment(), code="other")
    write_run_record(tmp_path / "sweep.json", RunRecord({}, environment, "2026-01-01"))
    settings: Any = SimpleNamespace(run=config(), budget_seconds=lambda: None)
    context: Any = SimpleNamespace(folder=tmp_path)
    controller: Any = SimpleNamespace(is_finished=lambda: False)
    journal: Any = SimpleNamespace(records=[])
    monkeypatch.setattr(cluster, "joined", lambda *_: pytest.fail("it trains"))
    with pytest.raises(ConfigError, match=r"started with other code or libraries \(code: other then.*--accept-changes"):
        command._train(settings, context, controller, journal, lambda: None, lambda: None)


@pytest.mark.parametrize(
    ("before", "now", "nodes", "threads", "side_by_side"),
    [
        (4.0, Layout(1, 8, False, 1.0, ""), (8,), 4, 2),  # more configurations now, and a core for each
        (1.0, Layout(1, 2, False, 4.0, ""), (8,), 1, 2),
        (2.0, Layout(1, 4, False, 2.0, ""), (8,), 2, 4),
        (16.0, Layout(1, 2, False, 4.0, ""), (8,), 4, 2),  # no node has so many: the units themselves refuse
        (4.0, Layout(1, 8, True, 1.0, ""), (8,), 1, 8),  # on GPUs, threads decide nothing
    ],
)
def test_units_in_training_keep_the_threads_they_started_with(
    before: float, now: Layout, nodes: tuple[int, ...], threads: int, side_by_side: int
) -> None:
    session = SessionStarted(0.0, None, "CPU core", per_unit=before, ranks=1, share=1.0, side_by_side=1)
    journal: Any = SimpleNamespace(records=[session, UnitStarted(0.0, 0, 0)])
    controller: Any = SimpleNamespace(running={"a unit": None})
    layout = command._keep_threads(now, Machines((0,) * len(nodes), nodes), journal, controller)
    assert (layout.threads, layout.side_by_side) == (threads, side_by_side)
    controller.running.clear()
    assert command._keep_threads(now, Machines((0,), nodes), journal, controller) == now

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest

from melanoma_dist import run
from melanoma_dist.artifacts.run_folder import RunFolder
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.distributed import cluster, nodes, units
from melanoma_dist.distributed.plan import Layout, Machines, lay_out
from melanoma_dist.distributed.processes import ProcessWorkers
from melanoma_dist.distributed.units import WorkSource
from melanoma_dist.distributed.workers import Workers
from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.evaluate.tracking import RunTracker
from melanoma_dist.tasks.classification import ClassificationRuns

from .samples import tiny


def test_a_resumed_run_has_the_layout_it_started_with(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another number of threads or ranks would change the last bits of the folds that are left."""
    started: list[tuple[list[int], Layout]] = []

    @contextmanager
    def four_cores(_: object) -> Iterator[Machines]:
        yield Machines(gpus=(0,), cores=(4,))

    def record(source: WorkSource, layout: Layout, grace_s: float, workers: Workers, units: int) -> None:
        started.append(([unit.fold for unit in iter(source.next_unit, None)], layout))
        assert units == len(started[-1][0])

    def train() -> None:
        with run.open_worker_pool(config) as pool:
            run._train_folds(config, dataset, RunFolder(tmp_path, {}), RunTracker(None), pool)

    monkeypatch.setattr(cluster, "joined", four_cores)
    monkeypatch.setattr(units, "open_workers", lambda layout: nullcontext(layout))
    monkeypatch.setattr(units, "train_units", record)
    config = tiny(folds=4)
    train()
    for fold in (0, 2, 3):
        (tmp_path / f"fold-{fold}").mkdir()
        (tmp_path / f"fold-{fold}" / "predictions.parquet").touch()
    train()
    (all_folds, first), (missing, second) = started
    assert (all_folds, missing) == ([0, 1, 2, 3], [1])
    assert second == first
    assert first.threads == 1


def test_nothing_trains_on_nodes_that_do_not_share_the_folder(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(folder: Path) -> None:
        raise ConfigError.of("runs", folder, "is not shared")

    config, two_nodes = tiny(folds=2), Machines(gpus=(0, 0), cores=(4, 4))
    pool = run.WorkerPool(two_nodes, lay_out(two_nodes, 2, 2, 0, None), ProcessWorkers.__new__(ProcessWorkers))
    monkeypatch.setattr(nodes, "require_shared", refuse)
    monkeypatch.setattr(units, "train_units", lambda *_: pytest.fail("it trains"))
    with pytest.raises(ConfigError, match=f"--runs {tmp_path}: is not shared"):
        run._train_folds(config, dataset, RunFolder(tmp_path, {}), RunTracker(None), pool)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"schema": 3}', '{"schema": 3, "synthetic": 1, "folds": 7}'])
def test_the_message_for_a_corrupt_summary_says_what_to_do(text: str, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(DataError, match=r"summary\.json: .*delete summary\.json and run the run's training command"):
        run.show_again(RunFolder(tmp_path, {}), ClassificationRuns())

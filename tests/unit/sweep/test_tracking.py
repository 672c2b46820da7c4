"""A sweep in MLflow's own store: a run for each configuration, read back by MLflow's client."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from melanoma_dist.data.manifest import Dataset
from melanoma_dist.errors import TrainingError

from .test_work_source import Setting, epoch_done, train


@pytest.mark.filterwarnings("ignore")  # of MLflow's own
def test_each_configuration_is_a_run_and_two_are_open_side_by_side(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra melanoma-dist[mlflow] is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    (tmp_path / "heads").mkdir()
    setting = Setting(dataset, tmp_path / "heads")
    setting.context = replace(setting.context, config=replace(setting.context.config, track="mlflow"))
    source = setting.start()
    first, second = source.next_unit(), source.next_unit()
    assert first is not None
    assert second is not None
    for unit in (first, second):
        source.on_event(unit, epoch_done(unit, 1))
    source.on_failure(second, 1.0, TrainingError("GPU 0 ran out of memory"))
    train(source, first, first=2)
    while (unit := source.next_unit()) is not None:
        train(source, unit)
    runs = {
        run.info.run_name: run for run in mlflow.search_runs(experiment_names=["melanoma-dist"], output_format="list")
    }
    assert runs.keys() == {
        setting.context.name(number, values) for number, values in enumerate(setting.controller.values)
    }
    for run in runs.values():
        assert run.info.status == "KILLED"  # the results of complete ones come last
        assert run.data.tags["sweep"] == "heads"
    history = mlflow.MlflowClient().get_metric_history(runs[first.run.name].info.run_id, "fold 0/AUC")
    assert [each.step for each in history] == [1, 2, 3, 4]
    best = setting.controller.racing.incumbent()
    assert best is not None
    metrics = runs[setting.context.name(best, setting.controller.values[best])].data.metrics
    assert {"fold 0/AUC", "fold 1/AUC"} <= metrics.keys()

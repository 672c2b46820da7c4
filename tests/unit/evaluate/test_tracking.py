"""Experiment trackers: MLflow's own store is read back by its own client."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from melanoma_dist.artifacts.run_folder import RunFolder
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.errors import ConfigError
from melanoma_dist.evaluate.finalize import finalize
from melanoma_dist.evaluate.tracking import RunTracker, check_tracker, open_tracker
from melanoma_dist.train.events import EpochDone

from ..samples import EPOCH, tiny
from .test_finalize import trained

STORE = "sqlite:///{}/mlflow.db"


def epoch(number: int, score: float = 0.75) -> EpochDone:
    return EpochDone.of(0, 9, replace(EPOCH, epoch=number, score=score))


@pytest.mark.filterwarnings("ignore")  # of MLflow's own
def test_mlflow_has_parameters_epochs_and_results_once_though_the_run_was_interrupted(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow", reason="the extra melanoma-dist[mlflow] is not installed")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", STORE.format(tmp_path))
    config, folder, folds = trained(dataset, tmp_path / "runs")
    config = replace(config, track="mlflow")
    check_tracker(config)
    with open_tracker(config, folder) as tracker:  # and it ends before the results
        tracker.log_epoch("fold 0", epoch(1, 0.7))
    (run,) = mlflow.search_runs(experiment_names=["melanoma-dist"], output_format="list")
    assert run.info.status == "KILLED"
    with open_tracker(config, folder) as tracker:
        tracker.log_epoch("fold 0", epoch(2, 0.8))
        summary = finalize(config, dataset, folds, folder, 3.0)
        tracker.finish(summary, folder.report)
    (run,) = mlflow.search_runs(experiment_names=["melanoma-dist"], output_format="list")
    assert (run.info.status, run.info.run_name) == ("FINISHED", folder.path.name)
    assert run.data.params == {key: str(value) for key, value in folder.identity.items()}
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "fold 0/AUC")
    assert [(each.step, each.value) for each in history] == [(1, 0.7), (2, 0.8)]
    assert run.data.metrics["fold 0/validation_loss"] == EPOCH.validation_loss
    auc = summary.out_of_fold.by_image.labels["MEL"].auc
    assert run.data.metrics["out_of_fold/auc"] == pytest.approx(auc)
    assert Path(run.data.tags["report"]) == folder.report.resolve()


class Broken:
    """A tracker whose server is gone."""

    calls = 0

    def log(self, values: Mapping[str, float], epoch: int | None) -> None:
        self.calls += 1
        raise OSError("connection refused")

    def close(self, report: Path | None) -> None:
        self.calls += 1


def test_a_tracker_that_fails_is_told_once_and_costs_no_training(capsys: pytest.CaptureFixture[str]) -> None:
    broken = Broken()
    tracker = RunTracker(broken)
    for number in (1, 2):
        tracker.log_epoch("fold 0", epoch(number))
    tracker.close()
    assert broken.calls == 1


def test_nothing_is_sent_unless_the_user_wants_it(tmp_path: Path) -> None:
    with open_tracker(tiny(), RunFolder(tmp_path, {})) as tracker:
        tracker.log_epoch("fold 0", epoch(1))
    assert list(tmp_path.iterdir()) == []


def test_a_tracker_that_is_not_installed_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"--track wandb: the package wandb is not installed.*melanoma-dist\[wandb\]"):
        check_tracker(tiny(track="wandb"))
    check_tracker(tiny())


def test_a_tracker_changes_no_result() -> None:
    assert tiny(track="mlflow").identity() == tiny().identity()

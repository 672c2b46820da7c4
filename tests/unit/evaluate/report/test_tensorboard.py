from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from melanoma_dist.artifacts.predictions import read_predictions
from melanoma_dist.config.run import RunConfig
from melanoma_dist.evaluate.report.tensorboard import write_hyperparameters, write_run_events

from .conftest import ReportedRun


def test_the_hyperparameter_view_is_renewed_and_leaves_other_events_alone(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        writer.add_scalar("out_of_fold_auc/MEL", 0.8, 0)
    for auc in (0.6, 0.7):
        metrics = {"hparam/auc_mean_over_folds": auc, "hparam/auc_first_fold": None}
        write_hyperparameters(
            {"optimizer.lr": 1e-3, "model.pooling": "avg", "input.image_size": None}, metrics, tmp_path
        )
    assert len(list(tmp_path.glob("events.*"))) == 2
    events = EventAccumulator(str(tmp_path)).Reload()
    assert sorted(events.Tags()["scalars"]) == ["hparam/auc_mean_over_folds", "out_of_fold_auc/MEL"]
    assert [round(event.value, 6) for event in events.Scalars("hparam/auc_mean_over_folds")] == [0.7]


def test_the_plots_of_the_report_and_the_ends_of_intervals_are_shown(reported: ReportedRun, tmp_path: Path) -> None:
    for name in ("summary.json", "predictions.parquet", "config.yaml", "record.json"):
        shutil.copy(reported.folder / name, tmp_path / name)
    write_run_events(reported.summary, read_predictions(tmp_path / "predictions.parquet"), RunConfig(), tmp_path)
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    shown = {"roc", "roc_labels", "calibration", "decision_curve", "confusion", "fold_spread", "seeds"}
    assert {f"out_of_fold/{name}" for name in shown} == set(events.Tags()["images"])
    found = reported.summary["out_of_fold"]["intervals"]["by_image"]["MEL"]["auc"]
    for name, value in (("", found["estimate"]), ("_low", found["low"]), ("_high", found["high"])):
        (event,) = events.Scalars(f"out_of_fold_auc{name}/MEL")
        assert event.value == pytest.approx(value)
    spread = reported.summary["over_folds"]["MEL"]["auc"]
    for name in ("mean", "sd", "low", "high"):
        assert events.Scalars(f"over_folds_auc_{name}/MEL")[0].value == pytest.approx(spread[name])

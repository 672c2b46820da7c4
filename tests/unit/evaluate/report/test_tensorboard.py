from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from melanoma_dist.evaluate.report.run_results import read_run_results
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
    results = replace(read_run_results(reported.folder), folder=tmp_path, histories={})
    write_run_events(results)
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    names = {"roc", "roc_labels", "calibration", "decision_curve", "confusion", "fold_spread", "seeds"}
    assert {f"out_of_fold/{name}" for name in names} == set(events.Tags()["images"])
    auc = reported.summary.out_of_fold.by_image.intervals["MEL"].auc
    for name, value in (("", auc.estimate), ("_low", auc.low), ("_high", auc.high)):
        (event,) = events.Scalars(f"out_of_fold_auc{name}/MEL")
        assert event.value == pytest.approx(value)
    spread = reported.summary.over_folds["MEL"].auc
    for name in ("mean", "sd", "low", "high"):
        assert events.Scalars(f"over_folds_auc_{name}/MEL")[0].value == pytest.approx(getattr(spread, name))

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util
from torch.utils.tensorboard import SummaryWriter

from melanoma_dist.evaluate.report.run_results import read_run_results
from melanoma_dist.evaluate.report.tensorboard import _hyperparameters, write_hyperparameters, write_run_events

from ...samples import tiny
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


def test_the_plots_of_the_report_and_a_table_of_its_metrics_are_shown(reported: ReportedRun, tmp_path: Path) -> None:
    results = replace(read_run_results(reported.folder), folder=tmp_path, histories={})
    write_run_events(results)
    events = EventAccumulator(str(tmp_path), size_guidance={"images": 0}).Reload()
    names = {"roc", "roc_labels", "calibration", "decision_curve", "confusion", "confusion_labels", "histograms",
             "fold_spread", "seeds"}  # fmt: skip
    assert {f"out_of_fold/{name}" for name in names} == set(events.Tags()["images"])
    assert all(tag.startswith("hparam/") for tag in events.Tags()["scalars"])  # a chart of one point shows nothing
    (text,) = events.Tensors("out_of_fold/metrics/text_summary")
    (table,) = tensor_util.make_ndarray(text.tensor_proto)
    auc = reported.summary.out_of_fold.by_image.intervals["MEL"].auc
    assert f"| MEL | {auc.estimate:.4f} ({auc.low:.4f} to {auc.high:.4f}) |" in table.decode()


def test_the_hyperparameters_are_backbone_and_rate_and_what_is_not_the_default(tmp_path: Path) -> None:
    config = tiny(backbone="test_vit", lr=1e-4, epochs=7, clip_norm=math.inf, runs=tmp_path, ranks_per_unit=2)
    names = list(_hyperparameters(config))
    assert names[:2] == ["model.backbone", "optimizer.lr"]
    assert set(names) == {
        "model.backbone", "optimizer.lr", "schedule.epochs", "optimizer.clip_norm", "model.weights", "model.head_norm",
        "input.image_size", "model.dropout", "input.batch_size", "optimizer.optimizer", "schedule.schedule",
        "schedule.warmup_epochs",
    }  # fmt: skip

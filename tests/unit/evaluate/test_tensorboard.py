from __future__ import annotations

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from melanoma_dist.evaluate.tensorboard import write_hyperparameters


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

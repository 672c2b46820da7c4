from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR, ReduceLROnPlateau

from melanoma_dist.config.run import Schedule, ScheduleConfig
from melanoma_dist.train.schedule import Progress, schedule_factor

AUCS = st.lists(st.integers(50, 70).map(lambda value: value / 100), min_size=1, max_size=40)


def optimizer() -> torch.optim.SGD:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


@settings(max_examples=50, deadline=None)
@given(AUCS, st.integers(1, 4), st.sampled_from([0.1, 0.3, 0.5]), st.sampled_from([0.0, 0.015, 0.1]))
def test_the_plateau_rule_is_pytorchs(aucs: list[float], patience: int, factor: float, gain: float) -> None:
    config = ScheduleConfig(
        schedule="plateau", plateau_patience=patience, plateau_factor=factor, min_gain=gain, warmup_epochs=0
    )
    theirs = optimizer()
    scheduler = ReduceLROnPlateau(theirs, "max", factor, patience, gain, "abs", eps=0.0)
    progress = Progress()
    for epoch, auc in enumerate(aucs):
        scheduler.step(auc)
        progress = progress.after(epoch, auc, config)
        assert schedule_factor(config, 9, 3, progress.reduction) == pytest.approx(theirs.param_groups[0]["lr"])
        assert progress.best == scheduler.best


def rates(scheduler: LRScheduler, steps: int) -> list[float]:
    rates = []
    for _ in range(steps):
        rates.append(float(scheduler.optimizer.param_groups[0]["lr"]))
        scheduler.optimizer.step()
        scheduler.step()
    return rates


def test_cosine_is_pytorchs_after_a_linear_rise() -> None:
    config = ScheduleConfig(epochs=6, schedule="cosine", warmup_epochs=1.5)
    ours = [schedule_factor(config, step, 10, 1.0) for step in range(60)]
    assert ours[:15] == pytest.approx([(step + 1) / 15 for step in range(15)])
    assert ours[15:] == pytest.approx(rates(CosineAnnealingLR(optimizer(), T_max=45), 45))


@pytest.mark.parametrize("warmup", [0.5, 2.0, 3.0])
def test_onecycle_is_pytorchs(warmup: float) -> None:
    config = ScheduleConfig(epochs=5, schedule="onecycle", warmup_epochs=warmup)
    ours = [schedule_factor(config, step, 8, 1.0) for step in range(40)]
    scheduler = OneCycleLR(
        optimizer(), max_lr=1.0, total_steps=40, pct_start=(8 * warmup + 1) / 40, cycle_momentum=False
    )
    rates = [float(scheduler.optimizer.param_groups[0]["lr"])]
    for _ in range(39):
        scheduler.optimizer.step()
        scheduler.step()
        rates.append(float(scheduler.optimizer.param_groups[0]["lr"]))
    assert ours == pytest.approx(rates, abs=1e-7)


def test_the_rise_of_a_cycle_is_a_share_of_its_length_and_a_warm_up_one_epoch() -> None:
    for epochs, rise in ((10, 3.0), (30, 9.0)):
        default, given = (ScheduleConfig(epochs=epochs, warmup_epochs=each) for each in (None, rise))
        assert [schedule_factor(default, step, 7, 1.0) for step in range(7 * epochs)] == [
            schedule_factor(given, step, 7, 1.0) for step in range(7 * epochs)
        ]
    plateau = ScheduleConfig(schedule="plateau")
    assert [schedule_factor(plateau, step, 4, 1.0) for step in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]


@pytest.mark.parametrize(("schedule", "last"), [("plateau", 6), ("constant", 6), ("onecycle", 29), ("cosine", 29)])
def test_a_rate_that_falls_to_zero_is_followed_to_its_end(schedule: Schedule, last: int) -> None:
    config, progress, epoch = ScheduleConfig(schedule=schedule), Progress().after(0, 0.9, ScheduleConfig()), 0
    while progress.reason_to_stop(config) is None:
        epoch += 1
        progress = progress.after(epoch, 0.8, config)
    assert epoch == last


def test_constant_stays() -> None:
    config = ScheduleConfig(schedule="constant", warmup_epochs=0)
    assert {schedule_factor(config, step, 4, 0.1) for step in range(120)} == {1.0}


@settings(max_examples=60, deadline=None)
@given(AUCS, st.integers(1, 5), st.integers(1, 40))
def test_it_stops_when_nothing_was_gained_for_long_and_says_so(aucs: list[float], patience: int, epochs: int) -> None:
    config = ScheduleConfig(patience=patience, epochs=epochs, min_gain=0.0, warmup_epochs=0)
    progress = Progress()
    for epoch, auc in enumerate(aucs[:epochs]):
        progress = progress.after(epoch, auc, config)
        idle = epoch - aucs.index(max(aucs[: epoch + 1]))
        reason = progress.reason_to_stop(config)
        if epoch + 1 == epochs:
            assert reason == f"all {epochs} epochs done"
        else:
            assert reason == (f"no gain for {idle} epochs" if idle >= patience else None)
        assert Progress(**json.loads(json.dumps(progress.state_dict()))) == progress

"""Play a sweep on synthetic curves, and write the journal that a real one would write."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from melanoma_dist.config.run import DataConfig, RunConfig, ScheduleConfig
from melanoma_dist.config.sweep import SweepConfig
from melanoma_dist.sweep.controller import Controller
from melanoma_dist.sweep.halving import Halving
from melanoma_dist.sweep.journal import (
    ConfigDropped,
    EpochFinished,
    Journal,
    UnitEnded,
    UnitStarted,
    UnitStopped,
    UnitWaits,
    timestamp,
)
from melanoma_dist.sweep.population import Population
from melanoma_dist.sweep.racing import FoldRacing, FoldTrial
from melanoma_dist.sweep.search import Stopper, build_searcher
from melanoma_dist.sweep.space import read_space

FOLDS, EPOCHS = 3, 9
_SPACE = """from ray import tune
SPACE = {"optimizer.lr": tune.loguniform(1e-5, 1e-1), "model.pooling": tune.choice(["avg", "max", "gem"])}
"""


def settings_of(**values: Any) -> SweepConfig:
    run = RunConfig(data=DataConfig(folds=FOLDS), schedule=ScheduleConfig(epochs=EPOCHS))
    return SweepConfig(run=run, **{"grace_epochs": 1, "searcher": "optuna", **values})


def controller_of(settings: SweepConfig, folder: Path, trials: int | None = 8) -> Controller:
    path = folder / "space.py"
    path.write_text(_SPACE)
    space = read_space(path)
    searcher, waiting = build_searcher(settings, space, seed=0), Halving.of(settings) or Population.of(settings, space)
    return Controller(searcher, Stopper(settings), waiting, FoldRacing(settings.folds, settings.fold_race), trials)


def auc_of(values: dict[str, Any], fold: int, epoch: int) -> float:
    """The AUC of an epoch: a function of the configuration, best near a learning rate of 1e-3, plus noise."""
    height = 0.9 - 0.05 * abs(float(np.log10(values["optimizer.lr"])) + 3) - 0.01 * (values["model.pooling"] == "max")
    noise = np.random.default_rng(zlib.crc32(f"{values} {fold} {epoch}".encode())).normal(0, 0.01)
    return float(height - 0.2 * np.exp(-epoch / 2) + noise)


def play(
    controller: Controller, journal: Journal, side_by_side: int, on_tick: Callable[[], None] = lambda: None
) -> None:
    """Train one epoch of each running unit at every tick, until nothing is left. Units that run already continue."""
    best = {trial: progress.best_score for trial, progress in controller.running.items()}
    first = {trial: progress.epoch for trial, progress in controller.running.items()}
    while True:
        while len(controller.running) < side_by_side and (trial := controller.next()) is not None:
            values = controller.values[trial.configuration] if trial.fold == 0 else None
            journal.write(UnitStarted(timestamp(), *trial, values, controller.parent(trial.configuration)))
            first[trial] = controller.running[trial].epoch
            best[trial] = controller.running[trial].best_score if first[trial] else float("-inf")
        if not controller.running:
            return
        for trial in list(controller.running):
            _epoch(controller, journal, trial, best, first[trial])
        on_tick()


def _epoch(
    controller: Controller, journal: Journal, trial: FoldTrial, best: dict[FoldTrial, float], first: int
) -> None:
    """``first``: the epochs that the unit had when it started, or continued."""
    epoch = controller.running[trial].epoch + 1
    if epoch > EPOCHS:  # a kill came before the record of its end
        _finish(controller, journal, trial, first)
        return
    auc = auc_of(controller.values[trial.configuration], trial.fold, epoch)
    best[trial] = max(auc, best[trial]) if best[trial] == best[trial] else auc
    journal.write(EpochFinished(timestamp(), *trial, epoch, auc, best[trial], seconds=1.0))
    reason = controller.report_epoch(trial, epoch, best[trial], auc)
    if trial.configuration in controller.waiting:
        journal.write(UnitWaits(timestamp(), *trial, epoch, str(reason)))
        journal.write(UnitEnded(timestamp(), *trial, "waiting", seconds=epoch - first + 0.5))
        for drop in controller.release(trial):
            journal.write(ConfigDropped(timestamp(), drop.configuration, drop.reason))
    elif reason is not None:
        journal.write(UnitStopped(timestamp(), *trial, epoch, reason))
        journal.write(UnitEnded(timestamp(), *trial, "stopped", seconds=epoch + 0.5))
    elif epoch == EPOCHS:
        _finish(controller, journal, trial, first)


def _finish(controller: Controller, journal: Journal, trial: FoldTrial, first: int) -> None:
    journal.write(UnitEnded(timestamp(), *trial, "finished", seconds=EPOCHS - first + 0.5))
    for drop in controller.finish(trial):
        journal.write(ConfigDropped(timestamp(), drop.configuration, drop.reason))

"""Plays a sweep on made-up curves, writing the journal that the real one would write."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from melanoma_dist.config.run import DataConfig, RunConfig, ScheduleConfig
from melanoma_dist.config.sweep import SweepConfig
from melanoma_dist.sweep.controller import Controller
from melanoma_dist.sweep.journal import Journal
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


def conductor_of(settings: SweepConfig, folder: Path, trials: int | None = 8) -> Controller:
    space = folder / "space.py"
    space.write_text(_SPACE)
    searcher = build_searcher(settings, read_space(space), seed=0)
    return Controller(searcher, Stopper(settings), FoldRacing(FOLDS, settings.fold_race), trials)


def auc_of(values: dict[str, Any], fold: int, epoch: int) -> float:
    """The AUC of an epoch: a function of the configuration, best near a rate of 1e-3, with noise of its own."""
    height = 0.9 - 0.05 * abs(float(np.log10(values["optimizer.lr"])) + 3) - 0.01 * (values["model.pooling"] == "max")
    noise = np.random.default_rng(zlib.crc32(f"{values} {fold} {epoch}".encode())).normal(0, 0.01)
    return float(height - 0.2 * np.exp(-epoch / 2) + noise)


def play(
    conductor: Controller, journal: Journal, side_by_side: int, on_tick: Callable[[], None] = lambda: None
) -> None:
    """Until nothing is left: every tick, each running unit trains one epoch. Goes on with units that are running."""
    best = {place: seen.best_auc for place, seen in conductor.running.items()}
    while True:
        while len(conductor.running) < side_by_side and (place := conductor.next()) is not None:
            new = {"values": conductor.values[place.configuration]} if place.fold == 0 else {}
            journal.write("start", configuration=place.configuration, fold=place.fold, **new)
            best[place] = float("-inf")
        if not conductor.running:
            return
        for place in list(conductor.running):
            _epoch(conductor, journal, place, best)
        on_tick()


def _epoch(conductor: Controller, journal: Journal, place: FoldTrial, best: dict[FoldTrial, float]) -> None:
    at = {"configuration": place.configuration, "fold": place.fold}
    epoch = conductor.running[place].epoch + 1
    if epoch > EPOCHS:  # it was killed before its end was written
        _finish(conductor, journal, place)
        return
    auc = auc_of(conductor.values[place.configuration], place.fold, epoch)
    best[place] = max(auc, best[place]) if best[place] == best[place] else auc
    journal.write("epoch", **at, epoch=epoch, auc=auc, best_auc=best[place], seconds=1.0)
    why = conductor.epoch(place, epoch, best[place])
    if why is not None:
        journal.write("stop", **at, epoch=epoch, why=why)
        journal.write("end", **at, state="stopped", seconds=epoch + 0.5)
    elif epoch == EPOCHS:
        _finish(conductor, journal, place)


def _finish(conductor: Controller, journal: Journal, place: FoldTrial) -> None:
    journal.write("end", configuration=place.configuration, fold=place.fold, state="finished", seconds=EPOCHS + 0.5)
    for drop in conductor.finish(place):
        journal.write("drop", configuration=drop.configuration, why=drop.why)

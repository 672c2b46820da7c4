"""Simulated sweeps over known learning curves for benchmarks/sweep.py, decided by the code that decides real sweeps."""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from melanoma_dist.config.run import ScheduleConfig
from melanoma_dist.config.sweep import SweepConfig
from melanoma_dist.sweep.controller import Controller
from melanoma_dist.sweep.halving import Halving
from melanoma_dist.sweep.journal import (
    ConfigDropped,
    EpochFinished,
    Record,
    UnitEnded,
    UnitStarted,
    UnitStopped,
    UnitWaits,
)
from melanoma_dist.sweep.racing import FoldRacing, FoldTrial
from melanoma_dist.sweep.search import Stopper
from melanoma_dist.train.schedule import Progress


@dataclass(frozen=True)
class Curves:
    """The curve and the cost of each unit if nothing stopped it."""

    auc: list[list[list[float]]]
    """Validation AUC of each configuration, fold and epoch."""
    epoch_seconds: list[list[float]]
    """Of each configuration and fold."""


@dataclass(frozen=True)
class SimulatedSweep:
    """The cost and the regret of a sweep over curves."""

    cost: float  # share of the full cost
    regret: float  # AUC


def synthetic_curves(rng: np.random.Generator, configurations: int, folds: int, epochs: int) -> Curves:
    """Draw learning curves as they look in this field.

    Each configuration approaches its own height (most near 0.88, some far below, one in ten does not learn) at its own
    speed; some decline after their peak. A fold shifts all configurations alike (sd 0.010) and each one on its own
    (sd 0.006). The validation AUC of an epoch varies around its curve (sd 0.008).
    """
    shared = rng.normal(0, 0.010, folds)
    auc, seconds = [], []
    for _ in range(configurations):
        height = 0.55 if rng.random() < 0.1 else 0.90 - rng.gamma(1.2, 0.025)
        speed, decline = np.exp(rng.normal(np.log(5.0), 0.7)), max(0.0, rng.normal(0, 0.0008))
        cost = float(np.exp(rng.normal(0, 0.5)))
        time = np.arange(1, epochs + 1)
        curve = height - (height - 0.5) * 0.6 * np.exp(-time / speed) - decline * np.maximum(0, time - 3 * speed)
        own = rng.normal(0, 0.006, folds)
        noise = rng.normal(0, 0.008, (folds, epochs))
        auc.append(np.clip(curve + (shared + own)[:, None] + noise, 0.3, 0.999).tolist())
        seconds.append([cost] * folds)
    return Curves(auc, seconds)


class _InOrder:
    """A searcher whose configurations are numbers."""

    def __init__(self) -> None:
        self._next = 0

    def suggest(self) -> dict[str, object]:
        self._next += 1
        return {"number": self._next - 1}

    def report(self, configuration: int, score: float | None, folds: int, epoch: int) -> None:
        """Ignore the result."""


def simulated_controller(curves: Curves, settings: SweepConfig) -> Controller:
    """The controller of a sweep over curves."""
    racing = FoldRacing(len(curves.auc[0]), settings.fold_race)
    return Controller(_InOrder(), Stopper(settings), Halving.of(settings), racing, len(curves.auc))


def simulate_sweep(
    curves: Curves, settings: SweepConfig, slots: int, record: Callable[[Record], None] = lambda record: None
) -> SimulatedSweep:
    """Run a sweep over curves: ``slots`` units at a time, each taking its time for every epoch.

    ``record`` takes what a real sweep would write to its journal.
    """
    schedule, folds = settings.run.schedule, len(curves.auc[0])
    controller = simulated_controller(curves, settings)
    running: list[tuple[float, int, FoldTrial, int, Progress]] = []  # a heap by the end of the epoch
    resumed: dict[FoldTrial, tuple[int, Progress]] = {}  # where first folds that wait continue
    now = spent = 0.0
    started = 0
    while True:
        while len(running) < slots and (trial := controller.next()) is not None:
            started += 1
            values = controller.values[trial.configuration] if trial.fold == 0 else None
            record(UnitStarted(now, *trial, values))
            epoch, progress = resumed.get(trial, (0, Progress()))
            heapq.heappush(running, (now + _seconds(curves, trial), started, trial, epoch, progress))
        if not running:
            break
        now, number, trial, epoch, progress = heapq.heappop(running)
        spent += _seconds(curves, trial)
        auc, seconds = curves.auc[trial.configuration][trial.fold][epoch], _seconds(curves, trial)
        progress = progress.after(epoch, auc, schedule)
        record(EpochFinished(now, *trial, epoch + 1, auc, progress.best, seconds))
        stop = controller.report_epoch(trial, epoch + 1, progress.best)
        if stop is not None:
            waits = trial.configuration in controller.waiting
            record((UnitWaits if waits else UnitStopped)(now, *trial, epoch + 1, stop))
            record(UnitEnded(now, *trial, "waiting" if waits else "stopped", seconds))
            resumed[trial] = epoch + 1, progress
            controller.release(trial)
        elif progress.reason_to_stop(schedule) is None:
            heapq.heappush(running, (now + _seconds(curves, trial), number, trial, epoch + 1, progress))
        else:
            record(UnitEnded(now, *trial, "finished", seconds))
            for drop in controller.finish(trial):
                record(ConfigDropped(now, drop.configuration, drop.reason))
    full = [[_whole(curves, FoldTrial(c, fold), schedule) for fold in range(folds)] for c in range(len(curves.auc))]
    means = [statistics.fmean(auc for auc, _ in units) for units in full]
    chosen = controller.racing.incumbent()
    if chosen is None:
        raise RuntimeError("no configuration was trained to its end")
    return SimulatedSweep(spent / sum(seconds for units in full for _, seconds in units), max(means) - means[chosen])


def _whole(curves: Curves, trial: FoldTrial, schedule: ScheduleConfig) -> tuple[float, float]:
    """The best AUC and the cost of a unit that only patience stops."""
    progress = Progress()
    for epoch, auc in enumerate(curves.auc[trial.configuration][trial.fold]):
        progress = progress.after(epoch, auc, schedule)
        if progress.reason_to_stop(schedule) is not None:
            break
    return progress.best, (progress.epoch + 1) * _seconds(curves, trial)


def _seconds(curves: Curves, trial: FoldTrial) -> float:
    return curves.epoch_seconds[trial.configuration][trial.fold]

"""The decisions of a sweep: which unit starts next, which one stops, and why.

The controller knows neither Ray's cluster nor files nor time. It learns through ``next``, ``report_epoch``, ``finish``
and ``fail`` alone, and the same calls in the same order lead to the same decisions. So a resumed sweep replays its
journal into a new controller, and a simulation feeds it synthetic curves.
"""

from __future__ import annotations

from dataclasses import dataclass

from melanoma_dist.sweep.racing import Drop, FoldRacing, FoldTrial
from melanoma_dist.sweep.search import Searcher, Stopper
from melanoma_dist.sweep.space import Values


@dataclass
class UnitProgress:
    """The last epoch (from 1) that a running unit reported."""

    epoch: int = 0
    best_auc: float = float("nan")


class Controller:
    """The state of a sweep."""

    def __init__(self, searcher: Searcher, stopper: Stopper, racing: FoldRacing, trials: int | None) -> None:
        """``trials``: configurations to try; None for as many as the searcher has."""
        self._searcher, self._stopper, self.racing = searcher, stopper, racing
        self.trials = trials
        self._exhausted = False
        self.values: list[Values] = []
        """The values of each configuration, by dotted field."""
        self.running: dict[FoldTrial, UnitProgress] = {}
        """Units that were started and are not finished."""

    def next(self) -> FoldTrial | None:
        """The unit to start, or None: nothing until another unit finishes."""
        trial = self.racing.next(self.running) or self._new() or self.racing.next_remaining(self.running)
        if trial is not None:
            self.running[trial] = UnitProgress()
        return trial

    def report_epoch(self, trial: FoldTrial, epoch: int, best_auc: float) -> str | None:
        """Record a finished epoch (from 1) of a unit. Returns the reason to stop the unit there, or None."""
        progress = self.running.get(trial)
        if progress is None or epoch <= progress.epoch:  # a restarted unit reports epochs again
            return None
        progress.epoch, progress.best_auc = epoch, best_auc
        reason = self.racing.states[trial.configuration].stop_reason
        if reason is None and trial.fold == 0:
            reason = self._stopper.report(trial.configuration, epoch, best_auc)
            if reason is not None:
                self.racing.stop(trial.configuration, reason)
                self._searcher.report(trial.configuration, best_auc)
        if reason is not None:
            del self.running[trial]
        return reason

    def finish(self, trial: FoldTrial) -> list[Drop]:
        """Record that a unit trained to its end. Returns the configurations that its AUC makes lose."""
        progress, state = self.running.pop(trial), self.racing.states[trial.configuration]
        if trial.fold == 0:
            self._stopper.finish(trial.configuration, progress.epoch, progress.best_auc)
        is_reported = state.stop_reason is not None  # dropped during its last epoch
        drops = self.racing.finish(trial, progress.best_auc)
        for drop in drops:
            self._searcher.report(drop.configuration, self.racing.states[drop.configuration].mean)
        if self.racing.is_complete(trial.configuration):
            state.stop_reason = None  # all its folds are trained, so it counts
            if not is_reported:
                self._searcher.report(trial.configuration, state.mean)
        return drops

    def fail(self, trial: FoldTrial, reason: str) -> None:
        """Record that a unit failed for good, and with it its configuration."""
        self.running.pop(trial, None)
        if self.racing.states[trial.configuration].stop_reason is None:
            self.racing.stop(trial.configuration, f"failed: {reason}")
            self._searcher.report(trial.configuration, None)

    def is_finished(self) -> bool:
        """Whether nothing runs and nothing is left to start, as far as is known without asking the searcher."""
        remaining = self.racing.next(()) or self.racing.next_remaining(())
        return not self.running and self._all_started() and remaining is None

    def _all_started(self) -> bool:
        return self._exhausted or (self.trials is not None and len(self.values) >= self.trials)

    def _new(self) -> FoldTrial | None:
        if self._all_started():
            return None
        values = self._searcher.suggest()
        if values is None:
            self._exhausted = True
            return None
        self.values.append(values)
        trial = self.racing.add()
        self._stopper.start(trial.configuration)
        return trial

"""The decisions of a sweep: which unit starts next, which one stops, and why.

The controller knows neither Ray's cluster nor files nor time. It learns through ``next``, ``report_epoch``, ``finish``
and ``fail`` alone, and the same calls in the same order lead to the same decisions. So a resumed sweep replays its
journal into a new controller, and a simulation feeds it synthetic curves.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from melanoma_dist.sweep.halving import Halving
from melanoma_dist.sweep.population import Population
from melanoma_dist.sweep.racing import Drop, FoldRacing, FoldTrial
from melanoma_dist.sweep.search import Searcher, Stopper
from melanoma_dist.sweep.space import Values


@dataclass
class UnitProgress:
    """The last epoch (from 1) that a running unit reported."""

    epoch: int = 0
    best_score: float = float("nan")


@dataclass(frozen=True)
class Wait:
    """A first fold that waits at a rung of ``Halving``, or in a ``Population``."""

    progress: UnitProgress
    reason: str


@dataclass(frozen=True)
class Origin:
    """Where a child of a population comes from."""

    parent: int
    epoch: int
    """Epochs that it shares with its parent: it starts from the checkpoint after them."""


class Controller:
    """The state of a sweep."""

    def __init__(
        self,
        searcher: Searcher,
        stopper: Stopper,
        halving: Halving | Population | None,
        racing: FoldRacing,
        trials: int | None,
    ) -> None:
        """``halving``: what lets first folds wait; None for a scheduler of Ray Tune.

        ``trials``: configurations to try; None for no limit.
        """
        self._searcher, self._stopper, self._halving, self.racing = searcher, stopper, halving, racing
        self._population = halving if isinstance(halving, Population) else None
        self.trials = trials
        self._exhausted = False
        self.values: list[Values] = []
        """The values of each configuration, by dotted field."""
        self.running: dict[FoldTrial, UnitProgress] = {}
        """Units that were started and are not finished."""
        self.waiting: dict[int, Wait] = {}
        """First folds that wait, by configuration."""
        self.origins: dict[int, Origin] = {}
        """Of the children of a population, by configuration."""

    @property
    def has_population(self) -> bool:
        """Whether this is population-based training: one fold, and configurations that continue others."""
        return self._population is not None

    def parent(self, configuration: int) -> int | None:
        """The configuration that a child of a population continues; None for all others."""
        origin = self.origins.get(configuration)
        return None if origin is None else origin.parent

    def next(self) -> FoldTrial | None:
        """The unit to start, or None: nothing until another unit finishes."""
        trial = self.racing.next(self.running) or self._resume(last=False) or self._new()
        trial = trial or self.racing.next_remaining(self.running) or self._resume(last=True)
        if trial is not None:
            wait = self.waiting.pop(trial.configuration, None)
            self.running[trial] = UnitProgress() if wait is None else wait.progress
        return trial

    def report_epoch(self, trial: FoldTrial, epoch: int, best_score: float, score: float | None = None) -> str | None:
        """Record a finished epoch (from 1) of a unit. Returns the reason to stop the unit there, or None.

        ``score``: of the epoch, if it is not the best; a population compares its members by it.
        """
        progress = self.running.get(trial)
        if progress is None or epoch <= progress.epoch:  # a restarted unit reports epochs again
            return None
        progress.epoch, progress.best_score = epoch, best_score
        reason = self.racing.states[trial.configuration].stop_reason
        if reason is None and trial.fold == 0:
            reason = self._report_first_fold(trial.configuration, progress, best_score if score is None else score)
        if reason is not None:
            del self.running[trial]
        return reason

    def release(self, trial: FoldTrial) -> list[Drop]:
        """Record that a unit left its devices before its end. A first fold that waits may continue from now on.

        Returns the members of a population that are replaced.
        """
        wait = self.waiting.get(trial.configuration)
        if self._halving is not None and wait is not None:
            self._halving.release(trial.configuration, wait.progress.epoch)
        return self._exchange()

    def reason_to_leave(self, trial: FoldTrial) -> str | None:
        """Why a unit shall not train now: its configuration was stopped, or it waits."""
        wait = self.waiting.get(trial.configuration)
        return self.racing.states[trial.configuration].stop_reason if wait is None else wait.reason

    def likeliest_to_continue(self) -> list[int]:
        """The configurations that wait, the likeliest first."""
        return [] if self._halving is None else self._halving.waiting()

    def finish(self, trial: FoldTrial) -> list[Drop]:
        """Record that a unit trained to its end. Returns the configurations that lose or are replaced now."""
        progress, state = self.running.pop(trial), self.racing.states[trial.configuration]
        if trial.fold == 0:
            self._stopper.finish(trial.configuration, progress.epoch, progress.best_score)
            if self._halving is not None:
                self._halving.finish(trial.configuration, progress.epoch, progress.best_score)
        is_reported = state.stop_reason is not None  # dropped during its last epoch
        drops = self.racing.finish(trial, progress.best_score)
        for drop in drops:
            self._report_mean(drop.configuration)
        if self.racing.is_complete(trial.configuration):
            state.stop_reason = None  # all its folds are trained, so it counts
            if not is_reported:
                self._report_mean(trial.configuration)
        return drops + self._exchange()

    def fail(self, trial: FoldTrial, reason: str) -> list[Drop]:
        """Record that a unit failed for good, and with it its configuration. Returns members that are replaced now."""
        progress = self.running.pop(trial, UnitProgress())
        self.waiting.pop(trial.configuration, None)
        if self.racing.states[trial.configuration].stop_reason is None:
            self.racing.stop(trial.configuration, f"failed: {reason}")
            self._searcher.report(trial.configuration, None, 0, progress.epoch)
        if self._population is not None:
            self._population.finish(trial.configuration, progress.epoch, progress.best_score)
        return self._exchange()

    def is_finished(self) -> bool:
        """Whether nothing runs and nothing is left to start, as far as is known without asking the searcher."""
        if self._has_busy_first_fold() or (self._population is not None and self.waiting):  # some may continue
            return False
        remaining = self.racing.next(()) or self.racing.next_remaining(())
        waiting = None if self._halving is None else self._halving.candidate(last=True)
        return not self.running and self._all_started() and remaining is None and waiting is None

    def _report_first_fold(self, configuration: int, progress: UnitProgress, score: float) -> str | None:
        reason = self._stopper.report(configuration, progress.epoch, progress.best_score)
        if reason is not None:
            self.racing.stop(configuration, reason)
        elif self._halving is not None:
            compared = progress.best_score if self._population is None else score
            reason = self._halving.report(configuration, progress.epoch, compared)
            if reason is not None:
                self.waiting[configuration] = Wait(progress, reason)
        if reason is not None:
            self._searcher.report(configuration, progress.best_score, 0, progress.epoch)
        return reason

    def _report_mean(self, configuration: int) -> None:
        state = self.racing.states[configuration]
        self._searcher.report(configuration, state.mean, len(state.scores), 0)

    def _exchange(self) -> list[Drop]:
        """Replace members of a population, all of which wait, by children that wait to start."""
        drops = []
        for each in self._population.exchange(self.values) if self._population is not None else ():
            child, progress = self.racing.add().configuration, self.waiting[each.parent].progress
            self.values.append(each.values)
            self.origins[child] = Origin(each.parent, each.epoch)
            reason = f"waits to continue c{each.parent:03d} from the end of its epoch {each.epoch}"
            self.waiting[child] = Wait(replace(progress), reason)
            del self.waiting[each.loser]
            self.racing.stop(each.loser, each.reason)
            drops.append(Drop(each.loser, each.reason))
        return drops

    def _resume(self, *, last: bool) -> FoldTrial | None:
        """The waiting first fold to continue; ``last``: as soon as no other trains or still leaves its devices."""
        if self._halving is None or (last and self._has_busy_first_fold()):
            return None
        configuration = self._halving.candidate(last=last)
        if configuration is None:
            return None
        self._halving.resume(configuration)
        return FoldTrial(configuration, 0)

    def _has_busy_first_fold(self) -> bool:
        return any(trial.fold == 0 for trial in self.running) or len(self.waiting) > len(self.likeliest_to_continue())

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
        if self._population is not None:
            self._population.start(trial.configuration)
        return trial

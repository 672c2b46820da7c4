"""Fold racing: which unit starts next, and which configuration has lost. Pure: it decides from scores alone.

A configuration starts with fold 0, where the scheduler may stop it between epochs (``search.Stopper``). Those that pass
race, fold after fold, until they are complete or fall behind the incumbent: the complete configuration with the highest
mean score. The *forgiving* rule drops a configuration whose mean over its finished folds is at or below the incumbent's
worst fold; the *aggressive* rule compares with the incumbent's mean (Bergman, Purucker and Hutter 2024, "Don't waste
your time: early stopping cross-validation": the forgiving rule saves nearly as much and seldom drops the best).
"""

from __future__ import annotations

import statistics
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from melanoma_dist.config.sweep import FoldRace


class FoldTrial(NamedTuple):
    """A unit of a sweep: one fold of one configuration, both counted from 0."""

    configuration: int
    fold: int


@dataclass(frozen=True)
class Drop:
    """The decision to drop a configuration between its folds."""

    configuration: int
    reason: str


@dataclass
class ConfigState:
    """The finished folds of a configuration, and whether it may go further."""

    scores: dict[int, float] = field(default_factory=dict)
    """Best validation score of each finished fold."""
    stop_reason: str | None = None
    """Why it was stopped, dropped or failed; None while it races."""

    @property
    def mean(self) -> float:
        """Mean score over its finished folds. Raises StatisticsError before the first one."""
        return statistics.fmean(self.scores.values())


class FoldRacing:
    """All configurations of a sweep, in the order of their start."""

    def __init__(self, folds: int, rule: FoldRace, score: str = "AUC") -> None:
        """Reasons name the ``score``."""
        self.folds, self.rule, self._score = folds, rule, score
        self.states: list[ConfigState] = []

    def add(self) -> FoldTrial:
        """Add a configuration. Returns its first unit."""
        self.states.append(ConfigState())
        return FoldTrial(len(self.states) - 1, 0)

    def is_complete(self, configuration: int) -> bool:
        """Whether all folds of a configuration are finished."""
        return len(self.states[configuration].scores) == self.folds

    def incumbent(self) -> int | None:
        """The complete configuration with the highest mean; the earlier one of equals."""
        return self._best([number for number in range(len(self.states)) if self.is_complete(number)])

    def finish(self, trial: FoldTrial, score: float) -> list[Drop]:
        """Record the score of a finished fold. Returns the configurations that it makes lose."""
        self.states[trial.configuration].scores[trial.fold] = score
        return self._drop_losers()

    def stop(self, configuration: int, reason: str) -> None:
        """Start no further fold of a configuration: the scheduler stopped it, it failed, or it lost."""
        self.states[configuration].stop_reason = reason

    def next(self, running: Collection[FoldTrial]) -> FoldTrial | None:
        """The unit to start before any new configuration, or None.

        It is the leader's next fold, one at a time: others can lose only once there is an incumbent.
        """
        leader = self._best(
            [number for number, state in enumerate(self.states) if state.scores and not state.stop_reason]
        )
        if leader is None or any(trial.configuration == leader for trial in running):
            return None
        return self._next_fold(leader, running)

    def next_remaining(self, running: Collection[FoldTrial]) -> FoldTrial | None:
        """The unit to start when no new configuration can start, or None.

        The best mean goes first. Two folds of one configuration run side by side only where no other has a fold left.
        """
        racing = [
            number
            for number, state in enumerate(self.states)
            if state.scores and not state.stop_reason and self._next_fold(number, running) is not None
        ]
        busy = {trial.configuration for trial in running}
        best = self._best([number for number in racing if number not in busy])
        best = self._best(racing) if best is None else best
        return None if best is None else self._next_fold(best, running)

    def _best(self, numbers: list[int]) -> int | None:
        return max(numbers, key=lambda number: (self.states[number].mean, -number), default=None)

    def _next_fold(self, configuration: int, running: Collection[FoldTrial]) -> FoldTrial | None:
        """The first fold that is neither finished nor running."""
        for fold in range(self.folds):
            trial = FoldTrial(configuration, fold)
            if fold not in self.states[configuration].scores and trial not in running:
                return trial
        return None

    def _drop_losers(self) -> list[Drop]:
        incumbent = self.incumbent()
        if incumbent is None or self.rule == "none":
            return []
        best = self.states[incumbent]
        limit = min(best.scores.values()) if self.rule == "forgiving" else best.mean
        measure = "worst fold" if self.rule == "forgiving" else "mean"
        drops = []
        for number, state in enumerate(self.states):
            is_behind = bool(state.scores) and state.mean <= limit
            if is_behind and state.stop_reason is None and not self.is_complete(number):
                folds = f"{len(state.scores)} fold{'s' if len(state.scores) > 1 else ''}"
                mean = f"mean {self._score} {state.mean:.4f} over {folds}"
                reason = f"{mean} is not above {limit:.4f}, c{incumbent:03d}'s {measure}"
                drops.append(Drop(number, reason))
                self.stop(number, reason)
        return drops

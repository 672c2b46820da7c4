"""The race over folds: which unit is to run next, and which configuration has lost. Pure, and it says why.

A configuration begins with fold 0, where it may be stopped between epochs (``search.Stopper``). Those that get through
race: fold after fold, until they are complete or fall behind the incumbent, the complete configuration with the highest
mean. The *forgiving* rule drops a configuration whose mean over its finished folds is at or below the incumbent's worst
fold; the *aggressive* one compares with the incumbent's mean (Bergman, Purucker and Hutter 2024, "Don't waste your
time: early stopping cross-validation": the former saves nearly as much and seldom drops the best).
"""

from __future__ import annotations

import statistics
from collections.abc import Collection
from dataclasses import dataclass, field

from melanoma_dist.config.sweep import FoldRace


@dataclass(frozen=True)
class FoldTrial:
    """A unit: a fold of a configuration."""

    configuration: int
    fold: int


@dataclass(frozen=True)
class Drop:
    """A configuration leaves the race."""

    configuration: int
    why: str


@dataclass
class ConfigState:
    """Where a configuration stands."""

    aucs: dict[int, float] = field(default_factory=dict)
    """Best validation AUC of each finished fold."""
    out: str | None = None
    """Why it left the race, or None."""

    @property
    def mean(self) -> float:
        """Mean AUC over its finished folds, of which there is at least one."""
        return statistics.fmean(self.aucs.values())


class FoldRacing:
    """All configurations of a sweep, in the order they were begun."""

    def __init__(self, folds: int, rule: FoldRace) -> None:
        self.folds, self.rule = folds, rule
        self.runners: list[ConfigState] = []

    def enter(self) -> FoldTrial:
        """A new configuration; its first unit."""
        self.runners.append(ConfigState())
        return FoldTrial(len(self.runners) - 1, 0)

    def complete(self, configuration: int) -> bool:
        """Whether all folds of a configuration are finished."""
        return len(self.runners[configuration].aucs) == self.folds

    def incumbent(self) -> int | None:
        """The complete configuration with the highest mean; the earlier one of equals."""
        complete = [number for number in range(len(self.runners)) if self.complete(number)]
        return max(complete, key=lambda number: (self.runners[number].mean, -number), default=None)

    def finish(self, place: FoldTrial, auc: float) -> list[Drop]:
        """Take in the AUC of a finished fold. Returns the configurations that have lost by it."""
        self.runners[place.configuration].aucs[place.fold] = auc
        return self._losers()

    def leave(self, configuration: int, why: str) -> None:
        """A configuration ends before its folds do: stopped, failed or dropped."""
        self.runners[configuration].out = why

    def next(self, running: Collection[FoldTrial]) -> FoldTrial | None:
        """The unit to start next among configurations that have begun, if one should go before a new configuration.

        That is the next fold of the one that leads, so that there soon is an incumbent that others can lose to.
        """
        leader = self._best([number for number, runner in enumerate(self.runners) if runner.aucs and not runner.out])
        if leader is None or any(place.configuration == leader for place in running):
            return None
        return self._fold_of(leader, running)

    def next_left(self, running: Collection[FoldTrial]) -> FoldTrial | None:
        """The unit to start when nothing new is to begin: the best mean first, folds of one side by side last."""
        racing = [
            number
            for number, runner in enumerate(self.runners)
            if runner.aucs and not runner.out and self._fold_of(number, running) is not None
        ]
        busy = {place.configuration for place in running}
        best = self._best([number for number in racing if number not in busy])
        best = self._best(racing) if best is None else best
        return None if best is None else self._fold_of(best, running)

    def _best(self, numbers: list[int]) -> int | None:
        return max(numbers, key=lambda number: (self.runners[number].mean, -number), default=None)

    def _fold_of(self, configuration: int, running: Collection[FoldTrial]) -> FoldTrial | None:
        """The first fold that is neither finished nor running."""
        for fold in range(self.folds):
            place = FoldTrial(configuration, fold)
            if fold not in self.runners[configuration].aucs and place not in running:
                return place
        return None

    def _losers(self) -> list[Drop]:
        incumbent = self.incumbent()
        if incumbent is None or self.rule == "none":
            return []
        best = self.runners[incumbent]
        limit = min(best.aucs.values()) if self.rule == "forgiving" else best.mean
        what = "worst fold" if self.rule == "forgiving" else "mean"
        drops = []
        for number, runner in enumerate(self.runners):
            behind = bool(runner.aucs) and runner.mean <= limit
            if behind and runner.out is None and not self.complete(number):
                folds = f"{len(runner.aucs)} fold{'s' if len(runner.aucs) > 1 else ''}"
                why = f"mean AUC {runner.mean:.4f} over {folds} is not above {limit:.4f}, c{incumbent:03d}'s {what}"
                drops.append(Drop(number, why))
                self.leave(number, why)
        return drops

"""Decides, and knows nothing of Ray's cluster, of files or of time: what starts next, what stops, and why.

All it learns comes through ``next``, ``epoch``, ``finish`` and ``fail``. Told the same in the same order, it decides
the same: a sweep that goes on tells its journal to a new conductor, and a simulation tells it made-up curves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from melanoma_dist.sweep.racing import Drop, FoldRacing, FoldTrial
from melanoma_dist.sweep.search import Searcher, Stopper


@dataclass
class _Seen:
    """The last epoch a running unit reported."""

    epoch: int = 0
    best_auc: float = float("nan")


class Controller:
    """The state of a sweep."""

    def __init__(self, searcher: Searcher, stopper: Stopper, race: FoldRacing, trials: int | None) -> None:
        """``trials``: configurations to try; None for as many as the searcher has."""
        self._searcher, self._stopper, self.race = searcher, stopper, race
        self.trials = trials
        self._exhausted = False
        self.values: list[dict[str, Any]] = []
        """The dotted values of each configuration."""
        self.running: dict[FoldTrial, _Seen] = {}
        """Units that were started and have not ended."""

    def next(self) -> FoldTrial | None:
        """The unit to start, or None: nothing as long as no other unit ends."""
        place = self.race.next(self.running) or self._new() or self.race.next_left(self.running)
        if place is not None:
            self.running[place] = _Seen()
        return place

    def epoch(self, place: FoldTrial, epoch: int, best_auc: float) -> str | None:
        """A unit has finished an epoch (from 1). Returns why it is to stop there, or None."""
        seen = self.running.get(place)
        if seen is None or epoch <= seen.epoch:  # told again by a unit that was restarted
            return None
        seen.epoch, seen.best_auc = epoch, best_auc
        reason = self.race.runners[place.configuration].out
        if reason is None and place.fold == 0:
            reason = self._stopper.verdict(place.configuration, epoch, best_auc)
            if reason is not None:
                self.race.leave(place.configuration, reason)
                self._searcher.tell(place.configuration, best_auc)
        if reason is not None:
            del self.running[place]
        return reason

    def finish(self, place: FoldTrial) -> list[Drop]:
        """A unit has ended by itself. Returns the configurations that are dropped because of its AUC."""
        seen, runner = self.running.pop(place), self.race.runners[place.configuration]
        if place.fold == 0:
            self._stopper.finish(place.configuration, seen.epoch, seen.best_auc)
        told = runner.out is not None  # dropped in its last epoch
        drops = self.race.finish(place, seen.best_auc)
        for drop in drops:
            self._searcher.tell(drop.configuration, self.race.runners[drop.configuration].mean)
        if self.race.complete(place.configuration):
            runner.out = None  # it was paid for in full, and counts
            if not told:
                self._searcher.tell(place.configuration, runner.mean)
        return drops

    def fail(self, place: FoldTrial, why: str) -> None:
        """A unit failed for good, and its configuration with it."""
        self.running.pop(place, None)
        if self.race.runners[place.configuration].out is None:
            self.race.leave(place.configuration, f"failed: {why}")
            self._searcher.tell(place.configuration, None)

    def over(self) -> bool:
        """Whether nothing runs and nothing is left to start, as far as that is known without asking the searcher."""
        begun_all = self._exhausted or (self.trials is not None and len(self.values) >= self.trials)
        return not self.running and begun_all and self.race.next(()) is None and self.race.next_left(()) is None

    def _new(self) -> FoldTrial | None:
        if self._exhausted or (self.trials is not None and len(self.values) >= self.trials):
            return None
        values = self._searcher.suggest()
        if values is None:
            self._exhausted = True
            return None
        self.values.append(values)
        place = self.race.enter()
        self._stopper.begin(place.configuration)
        return place

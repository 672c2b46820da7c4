"""Population-based training: which members of a population are replaced, and whose children replace them. Pure.

Jaderberg et al. 2017, "Population based training of neural networks". Members train one fold. After every ``interval``
epochs a member waits until all others have reached the same epoch. Then each of the worst 1 in ``factor`` is replaced
by a child of one of the best 1 in ``factor``: it has the configuration of its parent and, from the next epoch on, some
other hyperparameters (see `exploration`). So the parent's checkpoint is the child's too, and the child can also be
trained from its start.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from melanoma_dist.config.changes import parse_changes
from melanoma_dist.config.sweep import SweepConfig
from melanoma_dist.sweep.exchange import Exchange, Interval
from melanoma_dist.sweep.exploration import Explorer
from melanoma_dist.sweep.space import Space, Values

Explore = Callable[[int, Exchange], Values | None]
"""The values of a child by the number of its parent: changed after the exchange, and unlike all others.

None if there are no such values.
"""


@dataclass(frozen=True)
class Replacement:
    """The decision to replace a member by a child of another one."""

    loser: int
    parent: int
    epoch: int
    """Epochs that parent and child share."""
    values: Values
    """Of the child, whose number is the next one."""
    reason: str


class Population:
    """The members of a sweep, all of whom train the same fold."""

    def __init__(
        self, size: int, epochs: int, interval: int, factor: float, seed: int, explore: Explore, score: str = "AUC",
        name: str = "pbt",
    ) -> None:  # fmt: skip
        """Members wait after every ``interval`` epochs, below ``epochs``. Reasons have the ``score`` and ``name``."""
        self._rounds = range(interval, epochs, interval)
        self._factor, self._seed, self._explore, self._score, self._name = factor, seed, explore, score, name
        self._history: list[Interval] = []
        self._before: dict[int, float] = {}  # scores at the last exchange
        self._missing = size  # members that have not started yet
        self._members: set[int] = set()
        self._epoch = 0  # of the round
        self._scores: dict[int, float] = {}
        self._released: set[int] = set()  # members that wait and have left their devices
        self._queue: list[int] = []  # members that may continue

    @classmethod
    def of(cls, settings: SweepConfig, space: Space) -> Population | None:
        """That of a sweep; None for another scheduler. Raises ConfigError where no field can change."""
        if not settings.has_population or settings.trials is None:
            return None
        run, name = settings.run, settings.scheduler
        explorer = Explorer(space, run, name)
        if name == "pb2":  # scikit-learn takes a second to load
            from melanoma_dist.sweep.bandit import BanditExplorer

            explorer = BanditExplorer(space, run, name)
        epochs, interval, factor = run.schedule.epochs, settings.grace_epochs, settings.reduction_factor
        return cls(settings.trials, epochs, interval, factor, run.seed, explorer.child, run.score_name, name)

    def start(self, configuration: int) -> None:
        """Add a member of the first generation."""
        self._missing -= 1
        self._members.add(configuration)

    def report(self, configuration: int, epoch: int, score: float) -> str | None:
        """Report a finished epoch (from 1) with its score. Returns the reason to wait there, or None."""
        if epoch not in self._rounds:
            return None
        self._epoch, self._scores[configuration] = epoch, score
        return f"{self._name}: {self._score} {score:.4f} after {_epochs(epoch)}, waits for the population"

    def release(self, configuration: int, epoch: int) -> None:
        """Note that a waiting member has left its devices after ``epoch``."""
        self._released.add(configuration)

    def finish(self, configuration: int, epoch: int, best_score: float) -> None:
        """Finish a member: patience or its last epoch ended it, or it failed. Nobody replaces it."""
        self._members.discard(configuration)

    def candidate(self, *, last: bool) -> int | None:
        """The member to start or to continue now, or None; whether anything else is left to train does not matter."""
        return self._queue[0] if self._queue else None

    def resume(self, configuration: int) -> None:
        """Start or continue a member."""
        self._queue.remove(configuration)

    def waiting(self) -> list[int]:
        """The members that wait, the first to continue first."""
        return [*self._queue, *sorted(self._released)]

    def exchange(self, values: Sequence[Values]) -> list[Replacement]:
        """Decide once all members wait, and let them continue. ``values``: of all configurations so far."""
        if self._missing or self._members != self._released:
            return []
        ranking = sorted(self._members, key=lambda number: (-self._scores[number], number))
        count = min(math.ceil(len(ranking) / self._factor), len(ranking) // 2)
        exchange = self._begin(ranking[: len(ranking) - count], list(values))
        replacements = []
        for loser in sorted(ranking[len(ranking) - count :]):
            parent, number = ranking[int(exchange.draws.integers(count))], len(exchange.values)
            child = self._explore(parent, exchange)
            if child is None:
                exchange.continuing.append(loser)
                continue
            reason = f"is among the lowest {count} of {len(ranking)}; {self._in_words(number, parent, child)}"
            reason = f"{self._name}: {self._score} {self._scores[loser]:.4f} after {_epochs(self._epoch)} {reason}"
            replacements.append(Replacement(loser, parent, self._epoch, child, reason))
            exchange.values.append(child)
            exchange.scores[number] = exchange.scores[parent]
            exchange.continuing.append(number)
        losers = {each.loser for each in replacements}
        children = list(range(len(values), len(exchange.values)))
        # Children first: they start from checkpoints that their parents replace when they continue.
        self._queue = children + [member for member in ranking if member not in losers]
        self._members, self._released, self._scores = set(self._queue), set(), {}
        return replacements

    def _begin(self, continuing: list[int], values: list[Values]) -> Exchange:
        start, scores = self._epoch - self._rounds.step, dict(self._scores)
        self._history += [
            Interval(number, start, self._before.get(number, 0.0), scores[number]) for number in sorted(scores)
        ]
        self._before = scores
        draws = np.random.default_rng((self._seed, self._epoch))
        return Exchange(self._epoch, scores, self._history, draws, values, continuing)

    def _in_words(self, number: int, parent: int, values: Values) -> str:
        changes = parse_changes(str(values["schedule.changes"]))
        latest = " ".join(str(change) for change in changes if change.epoch > self._epoch)
        return f"c{number:03d} replaces it, a copy of c{parent:03d} with {latest}"


def _epochs(count: int) -> str:
    return f"{count} epoch{'' if count == 1 else 's'}"

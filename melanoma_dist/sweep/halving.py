"""Successive halving with waiting: which configurations continue their first fold beyond a rung. Pure.

Li et al. 2020, "A system for massively parallel hyperparameter tuning", algorithm 2. At each rung, a number of epochs,
a first fold waits unless it is among the best 1 in ``factor`` that reached the rung so far. It continues from its
checkpoint once it is among them. Ray Tune's ASHA decides for good when a first fold reaches a rung: the early ones
continue because there is little to compare with, and one that stopped never continues.
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass, field

from melanoma_dist.config.sweep import SweepConfig

_SURVIVORS = 3
"""Configurations that continue beyond each rung at least, once nothing else is left to train. The score of one fold
after a few epochs is noisy: with one, simulated sweeps chose a worse configuration twice as often."""


@dataclass
class _Rung:
    ranking: list[tuple[float, int]] = field(default_factory=list)
    """(-score, configuration) of all that reached it, the best first."""
    continued: set[int] = field(default_factory=set)


class Halving:
    """The rungs of a sweep."""

    def __init__(self, epochs: int, grace_epochs: int, factor: float, score: str = "AUC") -> None:
        """Rungs lie at ``grace_epochs``, times ``factor`` each, below ``epochs``. Reasons name the ``score``."""
        self._factor, self._score = factor, score
        self._rungs: dict[int, _Rung] = {}
        rung = float(grace_epochs)
        while int(rung) < epochs:
            self._rungs[int(rung)] = _Rung()
            rung *= factor
        self._waiting: dict[int, int] = {}  # the rung of each configuration that may continue

    @classmethod
    def of(cls, settings: SweepConfig) -> Halving | None:
        """That of a sweep; None for another scheduler."""
        if settings.scheduler != "halving":
            return None
        run = settings.run
        return cls(run.schedule.epochs, settings.grace_epochs, settings.reduction_factor, run.score_name)

    def report(self, configuration: int, epoch: int, best_score: float) -> str | None:
        """Report a finished epoch (from 1) of a first fold. Returns the reason to wait there, or None."""
        rung = self._rungs.get(epoch)
        if rung is None:
            return None
        insort(rung.ranking, (-best_score, configuration))
        if configuration in self._best(rung):
            rung.continued.add(configuration)
            return None
        epochs = f"{epoch} epoch{'' if epoch == 1 else 's'}"
        best = f"best {self._score} {best_score:.4f}"
        return f"halving: {best} after {epochs} is not among the best 1 in {self._factor:g} so far"

    def release(self, configuration: int, epoch: int) -> None:
        """Note that a waiting first fold has left its devices, so that it may continue."""
        self._waiting[configuration] = epoch

    def finish(self, configuration: int, epoch: int, best_score: float) -> None:
        """Finish a first fold that patience or its last epoch ended: its best score stands for the remaining rungs."""
        for at, rung in self._rungs.items():
            if at > epoch:
                insort(rung.ranking, (-best_score, configuration))
                rung.continued.add(configuration)

    def candidate(self, *, last: bool) -> int | None:
        """The waiting configuration to continue now, or None.

        ``last``: nothing else is left to train, so the best one continues where too few have.
        """
        for at, rung in reversed(self._rungs.items()):
            for configuration in self._best(rung):
                if self._waiting.get(configuration) == at:
                    return configuration
        if not last:
            return None
        for at, rung in reversed(self._rungs.items()):
            if len(rung.continued) < _SURVIVORS:
                for _, configuration in rung.ranking:
                    if self._waiting.get(configuration) == at:
                        return configuration
        return None

    def resume(self, configuration: int) -> None:
        """Continue a configuration that waits."""
        self._rungs[self._waiting.pop(configuration)].continued.add(configuration)

    def waiting(self) -> list[int]:
        """The configurations that wait, the likeliest to continue first."""
        return [
            configuration
            for at, rung in reversed(self._rungs.items())
            for _, configuration in rung.ranking
            if self._waiting.get(configuration) == at
        ]

    def _best(self, rung: _Rung) -> list[int]:
        return [configuration for _, configuration in rung.ranking[: int(len(rung.ranking) / self._factor)]]

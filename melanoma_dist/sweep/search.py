"""Ray Tune's searchers and schedulers, called without a tuner, so that they need no cluster.

The same objects decide in a new sweep, in a resumed one (which replays its journal into new objects, call by call, and
so restores their state) and in a simulation. Tune itself loses ASHA's rungs when it restores a search.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search.sample import Categorical, Float, Integer
from ray.tune.search.variant_generator import generate_variants

from melanoma_dist.config.run import RunConfig
from melanoma_dist.config.sweep import SweepConfig
from melanoma_dist.errors import ConfigError
from melanoma_dist.sweep.space import Space, Values
from melanoma_dist.sweep.tune_searcher import DRAWS, Deduplicator, TuneSearcher

_BRACKETS = 3  # of HyperBand
_METRIC = {"time_attr": "epoch", "metric": "score", "mode": "max"}


class Searcher(Protocol):
    """Suggests configurations."""

    def suggest(self) -> Values | None:
        """The values of a new configuration, by dotted field; None when the space is exhausted."""

    def report(self, configuration: int, score: float | None, folds: int, epoch: int) -> None:
        """Report the mean score of the finished folds of a configuration; None if it failed.

        Configurations are numbered from 0 in the order of suggestion. One that stops or waits in its first fold is
        reported with 0 folds, the epoch and the score there, and again if it is trained to its end.
        """


def build_searcher(settings: SweepConfig, space: Space, seed: int) -> Searcher:
    """The configured searcher. Raises ConfigError for a space that it cannot search."""
    sources = {"random": _random, "grid": _grid}
    if settings.searcher in sources:
        return _SequenceSearcher(settings.run, space, sources[settings.searcher](space, seed))
    return TuneSearcher(settings.searcher, settings.run, space, seed)


def grid_size(config: RunConfig, space: Space) -> int:
    """The number of combinations of a space of choices. Raises ConfigError for one with ranges."""
    if space.only_if:  # combinations that differ in inactive fields alone count once
        distinct = Deduplicator(config, space)
        return sum(distinct.take(values) is not None for values in _grid(space, 0))
    return math.prod(len(domain["grid_search"]) for domain in _choices(space).values() if isinstance(domain, dict))


def samples(space: Space) -> Iterator[Values]:
    """Values drawn at random, without end. Raises ConfigError where a function of the space fails."""
    try:
        yield from _random(space, 0)
    except Exception as error:  # the user's code may fail in any way
        raise ConfigError(f"--space {space.path}: drawing values failed ({type(error).__name__}: {error})") from error


def _random(space: Space, seed: int) -> Iterator[Values]:
    state = np.random.RandomState(seed)
    while True:
        # A function of the space may draw from the global generators, and a resumed sweep must draw the same.
        own = int(state.randint(2**31))
        np.random.seed(own)
        random.seed(own)
        yield from (values for _, values in generate_variants(dict(space.domains), random_state=state))


def _grid(space: Space, seed: int) -> Iterator[Values]:
    """Every combination, in an order drawn from the seed, so that a part of a grid is a fair sample of it."""
    variants = [values for _, values in generate_variants(_choices(space))]
    yield from (variants[position] for position in np.random.RandomState(seed).permutation(len(variants)))


def _choices(space: Space) -> Values:
    """The domains with every choice as a grid search. Raises ConfigError for ranges."""
    grid: Values = {}
    for key, domain in space.domains.items():
        if isinstance(domain, Float | Integer):
            raise space.error(key, "is a range, and --searcher grid needs choices (tune.choice or tune.grid_search)")
        grid[key] = {"grid_search": list(domain.categories)} if isinstance(domain, Categorical) else domain
    return grid


class _SequenceSearcher:
    """Suggests each distinct configuration of a sequence once, and learns nothing."""

    def __init__(self, config: RunConfig, space: Space, source: Iterator[Values]) -> None:
        self._distinct = Deduplicator(config, space)
        self._source = source

    def suggest(self) -> Values | None:
        for _, values in zip(range(DRAWS), self._source, strict=False):
            if (active := self._distinct.take(values)) is not None:
                return active
        return None

    def report(self, configuration: int, score: float | None, folds: int, epoch: int) -> None:
        """Ignore the result."""


@dataclass(frozen=True)
class _Trial:
    """The part of a trial that Tune's schedulers use."""

    trial_id: str


class _NoOtherTrials:
    """The part of Tune's controller that they use: no other trial waits for resources."""

    def get_live_trials(self) -> list[_Trial]:
        return []


class Stopper:
    """Stops configurations between the epochs of their first fold, with one of Ray Tune's schedulers."""

    def __init__(self, settings: SweepConfig) -> None:
        self._settings = settings
        self._epochs, self._seed = settings.run.schedule.epochs, settings.run.seed
        self._scheduler = _scheduler(settings)

    def start(self, configuration: int) -> None:
        """Register a configuration that starts its first fold."""
        if self._scheduler is not None:
            # HyperBand draws the bracket from NumPy's global generator, and a resumed sweep must draw the same.
            np.random.seed((self._seed + configuration) % 2**32)
            self._scheduler.on_trial_add(_NoOtherTrials(), _Trial(str(configuration)))

    def report(self, configuration: int, epoch: int, best_score: float) -> str | None:
        """Report a finished epoch (from 1). Returns the reason to stop the configuration there, or None."""
        if self._scheduler is None or epoch >= self._epochs:
            return None
        if _report(self._scheduler, configuration, epoch, best_score) != TrialScheduler.STOP:
            return None
        factor, name = self._settings.reduction_factor, self._settings.scheduler
        rule = "below the median of the others" if name == "median" else f"not among the best 1 in {factor:g} so far"
        epochs = f"{epoch} epoch{'' if epoch == 1 else 's'}"
        return f"{name}: best {self._settings.run.score_name} {best_score:.4f} after {epochs} is {rule}"

    def finish(self, configuration: int, epoch: int, best_score: float) -> None:
        """Finish a first fold that patience or its last epoch ended: its best score stands for the remaining epochs."""
        if self._scheduler is not None:
            for later in range(epoch + 1, self._epochs):
                _report(self._scheduler, configuration, later, best_score)


def _report(scheduler: TrialScheduler, configuration: int, epoch: int, score: float) -> str:
    result = {"epoch": epoch, "score": score, "training_iteration": epoch}
    return str(scheduler.on_trial_result(_NoOtherTrials(), _Trial(str(configuration)), result))


def _scheduler(settings: SweepConfig) -> TrialScheduler | None:
    epochs, grace = settings.run.schedule.epochs, settings.grace_epochs
    if settings.scheduler in ("none", "halving") or settings.has_population:
        return None
    if settings.scheduler == "median":
        return MedianStoppingRule(**_METRIC, grace_period=grace)
    brackets = _BRACKETS if settings.scheduler == "hyperband" else 1
    return AsyncHyperBandScheduler(
        **_METRIC, max_t=epochs, grace_period=grace, reduction_factor=settings.reduction_factor, brackets=brackets
    )

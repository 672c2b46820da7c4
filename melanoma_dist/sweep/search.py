"""Ray Tune's searchers and schedulers, driven by plain calls instead of Tune's own controller.

So they need no cluster: the same objects decide in a sweep, in one that goes on (its journal is told to new ones, call
by call, and they stand where they stood) and in a simulation. Tune itself loses ASHA's rungs when a search is restored.
"""

from __future__ import annotations

import logging
import math
import random
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from ray.tune.schedulers import AsyncHyperBandScheduler, MedianStoppingRule, TrialScheduler
from ray.tune.search.sample import Categorical, Float, Function, Integer, Quantized
from ray.tune.search.variant_generator import generate_variants

from melanoma_dist.config.run import RunConfig
from melanoma_dist.config.sweep import SweepConfig
from melanoma_dist.errors import ConfigError
from melanoma_dist.sweep.space import Space

_DRAWS = 200  # in a row that were seen before: the space is exhausted
_BRACKETS = 3  # of HyperBand
_MEASURE = {"time_attr": "epoch", "metric": "auc", "mode": "max"}


class Searcher(Protocol):
    """Where configurations come from."""

    def suggest(self) -> dict[str, Any] | None:
        """The dotted values of a new configuration; None where there is none left."""

    def tell(self, configuration: int, auc: float | None) -> None:
        """The mean AUC of a configuration that ended, counted from 0 as suggested; None for one that failed."""


def build_searcher(settings: SweepConfig, space: Space, seed: int) -> Searcher:
    """The searcher that was asked for. Raises ConfigError for a space that it cannot search."""
    sources = {"random": _random, "grid": _grid}
    if settings.searcher == "optuna":
        return _Optuna(settings.run, space, seed)
    return _Drawn(settings.run, space, sources[settings.searcher](space, seed))


def grid_size(config: RunConfig, space: Space) -> int:
    """The number of combinations of a space of choices. Raises ConfigError for one with ranges."""
    if space.only_if:  # what does not count makes no other combination
        unseen = _Unseen(config, space)
        return sum(unseen.take(values) is not None for values in _grid(space, 0))
    return math.prod(len(domain["grid_search"]) for domain in _choices(space).values() if isinstance(domain, dict))


def samples(space: Space) -> Iterator[dict[str, Any]]:
    """Values drawn at random, without end. Raises ConfigError where a function of the space fails."""
    try:
        yield from _random(space, 0)
    except Exception as error:  # it is the user's code and may fail in any way
        raise ConfigError(f"--space {space.path}: drawing values failed ({type(error).__name__}: {error})") from error


def _random(space: Space, seed: int) -> Iterator[dict[str, Any]]:
    state = np.random.RandomState(seed)
    while True:
        # A function of the space may draw from the global generators: a sweep that goes on must draw the same.
        own = int(state.randint(2**31))
        np.random.seed(own)
        random.seed(own)
        yield from (values for _, values in generate_variants(dict(space.domains), random_state=state))


def _grid(space: Space, seed: int) -> Iterator[dict[str, Any]]:
    """Every combination, in an order drawn from the seed: a part of a grid is then a fair one."""
    variants = [values for _, values in generate_variants(_choices(space))]
    yield from (variants[position] for position in np.random.RandomState(seed).permutation(len(variants)))


def _choices(space: Space) -> dict[str, Any]:
    """The space with every choice as one of a grid. Raises ConfigError for ranges."""
    grid = {}
    for key, domain in space.domains.items():
        if isinstance(domain, Float | Integer):
            raise space.error(key, "is a range, and --searcher grid needs choices (tune.choice or tune.grid_search)")
        grid[key] = {"grid_search": list(domain.categories)} if isinstance(domain, Categorical) else domain
    return grid


class _Drawn:
    """Values from a source that learns nothing; none twice."""

    def __init__(self, config: RunConfig, space: Space, source: Iterator[dict[str, Any]]) -> None:
        self._unseen = _Unseen(config, space)
        self._source = source

    def suggest(self) -> dict[str, Any] | None:
        for _, values in zip(range(_DRAWS), self._source, strict=False):
            if (active := self._unseen.take(values)) is not None:
                return active
        return None

    def tell(self, configuration: int, auc: float | None) -> None:
        """Nothing is learnt."""


class _Optuna:
    """Optuna's tree-structured Parzen estimator through Ray Tune's adapter."""

    def __init__(self, config: RunConfig, space: Space, seed: int) -> None:
        for key, domain in space.domains.items():
            if isinstance(domain, Function | dict):
                raise space.error(key, "cannot be searched by optuna, which knows choices and ranges. Use ONLY_IF")
            if isinstance(domain, Float | Integer) and isinstance(domain.sampler, Quantized):
                raise space.error(key, "has steps, which are lost on optuna; use a range without, or tune.choice")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that Ray converts the space
            logging.getLogger("ray.tune.search.optuna.optuna_search").setLevel(logging.ERROR)
            import optuna
            from ray.tune.search.optuna import OptunaSearch

            optuna.logging.set_verbosity(optuna.logging.ERROR)
            varied = {
                key: value for key, value in space.domains.items() if isinstance(value, Categorical | Float | Integer)
            }
            if not varied:
                raise space.error("SPACE", "has nothing that varies, and so nothing for optuna to search")
            self._fixed = {key: value for key, value in space.domains.items() if key not in varied}
            self._search = OptunaSearch(varied, metric="auc", mode="max", seed=seed)
        self._unseen = _Unseen(config, space)
        self._names: list[str] = []  # of each configuration, as the adapter knows it
        self._draws = 0

    def suggest(self) -> dict[str, Any] | None:
        for _ in range(_DRAWS):
            name = str(self._draws)
            self._draws += 1
            if (active := self._unseen.take({**self._search.suggest(name), **self._fixed})) is not None:
                self._names.append(name)
                return active
            self._search.on_trial_complete(name, error=True)
        return None

    def tell(self, configuration: int, auc: float | None) -> None:
        result = None if auc is None else {"auc": auc, "training_iteration": 1}
        self._search.on_trial_complete(self._names[configuration], result, error=auc is None)


class _Unseen:
    """Lets each set of values through once."""

    def __init__(self, config: RunConfig, space: Space) -> None:
        self._config, self._space = config, space
        self._seen: set[tuple[tuple[str, Any], ...]] = set()

    def take(self, values: Mapping[str, Any]) -> dict[str, Any] | None:
        """The values that count, as plain ones, or None where they were seen before."""
        plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in values.items()}
        active = self._space.active(self._config, plain)
        key = tuple(sorted(active.items()))
        if key in self._seen:
            return None
        self._seen.add(key)
        return active


@dataclass(frozen=True)
class _Trial:
    """What Tune's schedulers need of a trial: a name."""

    trial_id: str


class _Nobody:
    """What they need of Tune's controller: no trial waits that one could yield to."""

    def get_live_trials(self) -> list[_Trial]:
        return []


class Stopper:
    """Stops a configuration between the epochs of its first fold, by one of Ray Tune's schedulers."""

    def __init__(self, settings: SweepConfig) -> None:
        self._settings = settings
        self._epochs, self._seed = settings.run.schedule.epochs, settings.run.seed
        self._scheduler = _scheduler(settings)

    def begin(self, configuration: int) -> None:
        """A configuration begins its first fold."""
        if self._scheduler is not None:
            # HyperBand draws the bracket from NumPy's global generator; a sweep that goes on must draw the same.
            np.random.seed((self._seed + configuration) % 2**32)
            self._scheduler.on_trial_add(_Nobody(), _Trial(str(configuration)))

    def verdict(self, configuration: int, epoch: int, best_auc: float) -> str | None:
        """Why a configuration should stop after ``epoch`` (from 1), or None."""
        if self._scheduler is None or epoch >= self._epochs:
            return None
        if _see(self._scheduler, configuration, epoch, best_auc) != TrialScheduler.STOP:
            return None
        factor, name = self._settings.reduction_factor, self._settings.scheduler
        rule = "below the median of the others" if name == "median" else f"not among the best 1 in {factor:g} so far"
        epochs = f"{epoch} epoch{'' if epoch == 1 else 's'}"
        return f"{name}: best AUC {best_auc:.4f} after {epochs} is {rule}"

    def finish(self, configuration: int, epoch: int, best_auc: float) -> None:
        """A first fold ended by itself: at the epochs it did without, its best AUC stands for it."""
        if self._scheduler is not None:
            for later in range(epoch + 1, self._epochs):
                _see(self._scheduler, configuration, later, best_auc)


def _see(scheduler: TrialScheduler, configuration: int, epoch: int, auc: float) -> str:
    result = {"epoch": epoch, "auc": auc, "training_iteration": epoch}
    return str(scheduler.on_trial_result(_Nobody(), _Trial(str(configuration)), result))


def _scheduler(settings: SweepConfig) -> TrialScheduler | None:
    epochs, grace = settings.run.schedule.epochs, settings.grace_epochs
    if settings.scheduler == "none":
        return None
    if settings.scheduler == "median":
        return MedianStoppingRule(**_MEASURE, grace_period=grace)
    brackets = _BRACKETS if settings.scheduler == "hyperband" else 1
    return AsyncHyperBandScheduler(
        **_MEASURE, max_t=epochs, grace_period=grace, reduction_factor=settings.reduction_factor, brackets=brackets
    )

"""The searchers of Ray Tune that learn from results: Optuna's, and those of other libraries if they are installed.

A resumed sweep replays its journal into a new searcher, call by call, and must get the same suggestions. So these are
searchers whose suggestions follow from a seed and from the results before them, and that always have one.
"""

from __future__ import annotations

import importlib.util
import logging
import random
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from ray import tune
from ray.tune.search.sample import Categorical, Domain, Float, Function, Integer, Quantized

from melanoma_dist.config.run import RunConfig
from melanoma_dist.errors import ConfigError

if TYPE_CHECKING:
    from melanoma_dist.sweep.space import Space, Values

PACKAGES = {
    "optuna": ["optuna"],
    "hyperopt": ["hyperopt"],
    "nevergrad": ["nevergrad"],
    "bohb": ["hpbandster", "ConfigSpace"],
}
"""What each searcher needs, as it is installed and imported."""
DRAWS = 200
"""After so many duplicates in a row, the space counts as exhausted."""


class Deduplicator:
    """Passes each set of active values once."""

    def __init__(self, config: RunConfig, space: Space) -> None:
        self._config, self._space = config, space
        self._passed: set[tuple[tuple[str, object], ...]] = set()

    def take(self, values: Mapping[str, object]) -> Values | None:
        """The active values, as plain Python values; None for a duplicate."""
        plain = {key: value.item() if isinstance(value, np.generic) else value for key, value in values.items()}
        active = self._space.active(self._config, plain)
        key = tuple(sorted(active.items()))
        if key in self._passed:
            return None
        self._passed.add(key)
        return active


class TuneSearcher:
    """A searcher of Ray Tune that learns from the mean score of configurations."""

    def __init__(self, name: str, config: RunConfig, space: Space, seed: int) -> None:
        """Raises ConfigError for a library that is not installed, or a space that it cannot search."""
        varied = _varied(name, space)
        for package in PACKAGES[name]:
            if importlib.util.find_spec(package) is None:
                rule = f"the package {package} is not installed"
                install = f"pip install {' '.join(PACKAGES[name])}"
                raise ConfigError.of("searcher", name, rule, f"Type `{install}`, or choose optuna.")
        self._epochs = config.schedule.epochs
        self._fixed = {key: value for key, value in space.domains.items() if key not in varied}
        self._seed = seed
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Ray warns that it converts the space
            logging.getLogger("ray.tune.search").setLevel(logging.ERROR)
            self._search = _build_nevergrad(varied, seed) if name == "nevergrad" else _build(name, varied, seed)
        self._distinct = Deduplicator(config, space)
        self._names: list[str] = []  # Ray's name of each configuration
        self._points: list[Values] = []  # what the library suggested for it
        self._reported: set[int] = set()
        self._name = name
        self._draws = 0

    def suggest(self) -> Values | None:
        """See ``Searcher``."""
        for _ in range(DRAWS):
            name = str(self._draws)
            # A library may draw from the global generators, and a resumed sweep must draw the same.
            np.random.seed((self._seed + self._draws) % 2**32)
            random.seed(self._seed + self._draws)
            self._draws += 1
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                values = self._search.suggest(name)
            if (active := self._distinct.take({**values, **self._fixed})) is not None:
                self._names.append(name)
                self._points.append(values)
                return active
            self._search.on_trial_complete(name, error=True)
        return None

    def report(self, configuration: int, score: float | None, folds: int, epoch: int) -> None:
        """See ``Searcher``."""
        name, first = self._names[configuration], configuration not in self._reported
        self._reported.add(configuration)
        result = None if score is None else {"score": score, "training_iteration": 1}
        if self._name == "bohb":  # it models the scores of each budget on their own, and trusts the largest
            if result is not None:
                budget = {"budget": folds * self._epochs or epoch}
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # of the libraries below
                    self._search.on_trial_result(name, result | {"hyperband_info": budget})
        elif first:
            self._search.on_trial_complete(name, result, error=score is None)
        elif score is not None and self._name == "optuna":  # the others take no second result of a configuration
            self._search.add_evaluated_point(self._points[configuration], score)


def _varied(name: str, space: Space) -> dict[str, Domain]:
    """The fields to search. Raises ConfigError for a field that no such searcher can search."""
    for key, domain in space.domains.items():
        if isinstance(domain, Function | dict):
            raise space.error(key, f"cannot be searched by {name}, which supports choices and ranges only. Use ONLY_IF")
        if isinstance(domain, Float | Integer) and isinstance(domain.sampler, Quantized):
            raise space.error(key, f"has steps, which {name} ignores; use a range without steps, or tune.choice")
    varied = {key: value for key, value in space.domains.items() if isinstance(value, Categorical | Float | Integer)}
    if not varied:
        raise space.error("SPACE", f"has no field that varies, so {name} has nothing to search")
    return varied


def _build(name: str, varied: dict[str, Domain], seed: int) -> Any:
    if name == "optuna":
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
    # Each takes the names of the arguments that it knows.
    search = tune.create_searcher(name, metric="score", mode="max", seed=seed, random_state_seed=seed)
    search.set_search_properties("score", "max", varied)
    return search


def _build_nevergrad(varied: dict[str, Domain], seed: int) -> Any:
    """Nevergrad's (1+1) evolution strategy, which needs no budget. Ray has no argument for the seed."""
    import nevergrad
    from ray.tune.search.nevergrad import NevergradSearch

    space = NevergradSearch.convert_search_space(varied)
    space.random_state = np.random.RandomState(seed)
    return NevergradSearch(optimizer=nevergrad.optimizers.OnePlusOne, space=space, metric="score", mode="max")

"""The hyperparameters of a child in population-based training: those of its parent, perturbed or drawn again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from melanoma_dist.config.changes import CHANGEABLE, with_changes
from melanoma_dist.config.run import RunConfig, dotted, with_values
from melanoma_dist.config.sweep import SweepConfig
from melanoma_dist.sweep.population import Population
from melanoma_dist.sweep.search import Scale, scales
from melanoma_dist.sweep.space import Space, Values

_FACTORS = (0.8, 1.25)
_DRAWN_AGAIN = 0.25  # probability of a field (Jaderberg et al. 2017, as Ray Tune has it)
_ATTEMPTS = 20
_DIGITS = 3  # of a number: more would suggest that they matter
_CHANGES = "schedule.changes"


def population_of(settings: SweepConfig, space: Space) -> Population | None:
    """The population of a sweep, None for another scheduler. Raises ConfigError where no field can change."""
    if settings.scheduler != "pbt" or settings.trials is None:
        return None
    run, epochs = settings.run, settings.run.schedule.epochs
    explorer = Explorer(space, run)
    factor, interval = settings.reduction_factor, settings.grace_epochs
    return Population(settings.trials, epochs, interval, factor, run.seed, explorer.child, run.score_name)


class Explorer:
    """Changes the fields of a space that may change during a training."""

    def __init__(self, space: Space, config: RunConfig) -> None:
        """Raises ConfigError for a space without such a field."""
        self._config = config
        self._scales = {key: scale for key, scale in scales(space).items() if key in CHANGEABLE and _varies(scale)}
        if not self._scales:
            rule = "has no field that varies and may change during a training, so pbt has nothing to explore"
            raise space.error("SPACE", f"{rule}; these may: {', '.join(CHANGEABLE)}")

    def child(self, values: Values, epoch: int, draws: np.random.Generator, others: Sequence[Values]) -> Values | None:
        """The values of a parent, changed after ``epoch`` epochs. None if no change gives values unlike ``others``."""
        parent = with_values(self._config, values)
        current = dotted(parent.at_epoch(epoch - 1))
        active = {key: scale for key, scale in self._scales.items() if key in values}
        for _ in range(_ATTEMPTS):
            explored = {key: _explored(scale, current[key], draws) for key, scale in active.items()}
            changed = {key: value for key, value in explored.items() if value != current[key]}
            child = {**values, _CHANGES: with_changes(parent.schedule.changes, epoch + 1, changed)}
            if changed and child not in others:
                return child
        return None


def _varies(scale: Scale) -> bool:
    return len(scale.choices) > 1 or (not scale.choices and scale.bounds[0] < scale.bounds[1])


def _explored(scale: Scale, value: Any, draws: np.random.Generator) -> float:
    if draws.random() < _DRAWN_AGAIN or (scale.choices and value not in scale.choices):
        return _rounded(scale, scale.value(draws.random()))
    if not scale.choices:
        return _rounded(scale, value * draws.choice(_FACTORS))
    at = scale.choices.index(value)
    neighbours = [other for other in (at - 1, at + 1) if 0 <= other < len(scale.choices)]
    return _rounded(scale, scale.choices[draws.choice(neighbours)])


def _rounded(scale: Scale, value: Any) -> float:
    if scale.choices:
        return float(value)
    low, high = scale.bounds
    return float(min(max(float(f"{value:.{_DIGITS}g}"), low), high))

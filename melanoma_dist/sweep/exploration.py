"""The hyperparameters of a child in population-based training: those of its parent, perturbed or drawn again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from melanoma_dist.config.changes import CHANGEABLE, with_changes
from melanoma_dist.config.run import RunConfig, dotted, with_values
from melanoma_dist.sweep.domains import Scale, scales
from melanoma_dist.sweep.exchange import Exchange
from melanoma_dist.sweep.space import Space, Values

_FACTORS = (0.8, 1.25)
_DRAWN_AGAIN = 0.25  # probability of a field (Jaderberg et al. 2017, as Ray Tune has it)
_ATTEMPTS = 20
_DIGITS = 3  # of a number: more would suggest that they matter
_CHANGES = "schedule.changes"


class Explorer:
    """Changes the fields of a space that may change during a training, at random."""

    def __init__(self, space: Space, config: RunConfig, name: str = "pbt") -> None:
        """Raises ConfigError for a space without such a field. ``name``: of the scheduler."""
        self._config = config
        self._scales = {
            key: scale for key, scale in scales(space.domains).items() if key in CHANGEABLE and _varies(scale)
        }
        if not self._scales:
            rule = f"has no field that varies and may change during a training, so {name} has nothing to explore"
            raise space.error("SPACE", f"{rule}; these may: {', '.join(CHANGEABLE)}")

    def child(self, parent: int, exchange: Exchange) -> Values | None:
        """The values of a child, see `population.Explore`."""
        values = exchange.values[parent]
        current = self.at_epoch(values, exchange.epoch)
        active = {key: scale for key, scale in self._scales.items() if key in values}
        changes = with_values(self._config, values).schedule.changes
        for _ in range(_ATTEMPTS):
            explored = self.explore(active, current, parent, exchange)
            changed = {key: value for key, value in explored.items() if value != current[key]}
            child = {**values, _CHANGES: with_changes(changes, exchange.epoch + 1, changed)}
            if changed and child not in exchange.values:
                return child
        return None

    def at_epoch(self, values: Values, epoch: int) -> Mapping[str, Any]:
        """All fields of a configuration, as they are in an epoch (from 1)."""
        return dotted(with_values(self._config, values).at_epoch(epoch - 1))

    def explore(
        self, active: Mapping[str, Scale], current: Mapping[str, Any], parent: int, exchange: Exchange
    ) -> dict[str, float]:
        """New values of the ``active`` fields of a parent, whose own are ``current``. Each call may give others."""
        return {key: perturbed(scale, current[key], exchange.draws) for key, scale in active.items()}


def _varies(scale: Scale) -> bool:
    return len(scale.choices) > 1 or (not scale.choices and scale.bounds[0] < scale.bounds[1])


def perturbed(scale: Scale, value: Any, draws: np.random.Generator) -> float:
    """A value near another one, or any."""
    if draws.random() < _DRAWN_AGAIN or (scale.choices and value not in scale.choices):
        return rounded(scale, scale.value(draws.random()))
    if not scale.choices:
        return rounded(scale, value * draws.choice(_FACTORS))
    at = scale.choices.index(value)
    neighbours = [other for other in (at - 1, at + 1) if 0 <= other < len(scale.choices)]
    return rounded(scale, scale.choices[draws.choice(neighbours)])


def rounded(scale: Scale, value: Any) -> float:
    """A value as a change has it: of few digits, and within the bounds."""
    if scale.choices:
        return float(value)
    low, high = scale.bounds
    return float(min(max(float(f"{value:.{_DIGITS}g}"), low), high))

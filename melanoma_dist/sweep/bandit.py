"""Population-based bandits (PB2): a Gaussian process proposes the hyperparameters of children.

Parker-Holder et al. 2020, "Provably efficient online hyperparameter optimization with population-based bandits". The
process learns how much the score of a member rose in an interval, given its ranged hyperparameters, the score before
and the epoch; older intervals count less. A child gets the point with the highest upper confidence bound, where points
that others are about to try count as known. Choices are perturbed at random, as in plain population-based training.

Hyperparameters, the model's own too, are chosen among a finite number. So another machine, which rounds otherwise, can
decide otherwise only where two of them are equally good within its rounding; the journal's replay then says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import clone
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, Matern

from melanoma_dist.config.run import RunConfig
from melanoma_dist.sweep.domains import Scale
from melanoma_dist.sweep.exchange import Exchange
from melanoma_dist.sweep.exploration import Explorer, perturbed, rounded
from melanoma_dist.sweep.space import Space

Floats = npt.NDArray[np.float64]

_CANDIDATES = 1000
_LATEST = 500  # intervals to learn from: the time of a fit grows with their cube
_LENGTHS = (0.1, 0.2, 0.5, 1.0, 2.0)  # of the kernel, in shares of a scale
_SCORE_LENGTH = 1.0  # of the kernel along the score before, in standard deviations of an exchange
_MEMORIES = (0.1, 0.3, 1.0)  # the time after which an interval counts a third, in shares of the training
_NOISES = (0.1, 0.3, 1.0)  # variance beside that of the gains, which is 1
_FAR = 1e6  # a length at which a dimension does not count
_BETA = (0.2, 0.4)  # c1 and c2 of the paper: beta = c1 + log(c2 n)


class BanditExplorer(Explorer):
    """Changes the fields of a space that may change during a training by what helped so far."""

    def __init__(self, space: Space, config: RunConfig, name: str = "pb2") -> None:
        """Raises ConfigError for a space without a range to search."""
        super().__init__(space, config, name)
        self._ranges = {key: scale for key, scale in self._scales.items() if not scale.choices}
        if not self._ranges:
            raise space.error("SPACE", f"{name} learns about ranges, and only choices may change. Take --scheduler pbt")
        self._chosen: tuple[Exchange, GaussianProcessRegressor] | None = None  # the latest exchange, and its model

    def explore(
        self, active: Mapping[str, Scale], current: Mapping[str, Any], parent: int, exchange: Exchange
    ) -> dict[str, float]:
        """See `Explorer.explore`."""
        explored = {key: perturbed(scale, current[key], exchange.draws) for key, scale in active.items()}
        if not self._ranges.keys() & active.keys():
            return explored
        points = self._candidates(active, parent, exchange)
        busy = np.array([self._next_point(number, exchange) for number in exchange.continuing])
        best = points[highest_bound(self._model(exchange), busy, points)]
        proposed = dict(zip(self._ranges, best[2:], strict=True))
        ranges = {key: scale for key, scale in active.items() if key in proposed}
        return explored | {key: rounded(scale, scale.value(proposed[key])) for key, scale in ranges.items()}

    def _model(self, exchange: Exchange) -> GaussianProcessRegressor:
        """The process of an exchange's history: chosen once for all its children, since that takes most of the time."""
        if self._chosen is None or self._chosen[0] is not exchange:
            self._chosen = exchange, choose_model(*self._known(exchange))
        return self._chosen[1]

    def _candidates(self, active: Mapping[str, Scale], parent: int, exchange: Exchange) -> Floats:
        """[n, 2 + f] points that differ from the parent's next one in active fields."""
        points = np.tile(self._next_point(parent, exchange), (_CANDIDATES, 1))
        searched = [2 + at for at, key in enumerate(self._ranges) if key in active]
        points[:, searched] = exchange.draws.random((_CANDIDATES, len(searched)))
        return points

    def _known(self, exchange: Exchange) -> tuple[Floats, Floats]:
        """The latest intervals: [n, 2 + f] points, and [n] gains, standardised within each exchange."""
        latest = exchange.history[-_LATEST:]
        starts = np.array([each.start for each in latest])
        before, after = (np.array([getattr(each, name) for each in latest]) for name in ("before", "after"))
        settings = [self._fractions(each.configuration, exchange, each.start) for each in latest]
        points = np.column_stack([starts / self._config.schedule.epochs, _within(starts, before), settings])
        return points, _within(starts, after - before)

    def _next_point(self, configuration: int, exchange: Exchange) -> Floats:
        """[2 + f] the next interval of a member or a child: its start, the score before, the hyperparameters."""
        now = [each.after for each in exchange.history if each.start == exchange.history[-1].start]
        time, score = exchange.epoch / self._config.schedule.epochs, exchange.scores[configuration]
        standardised = (score - np.mean(now)) / (np.std(now) or 1.0)
        return np.array([time, standardised, *self._fractions(configuration, exchange, exchange.epoch)])

    def _fractions(self, configuration: int, exchange: Exchange, start: int) -> list[float]:
        """[f] where ranged fields of a configuration lie on their scales after an epoch; the middle where inactive."""
        values = exchange.values[configuration]
        fields = self.at_epoch(values, start + 1)
        # A change of the run's own configuration may leave the range: it counts as its bound.
        return [
            scale.fraction(rounded(scale, fields[key])) if key in values else 0.5 for key, scale in self._ranges.items()
        ]


def choose_model(inputs: Floats, gains: Floats) -> GaussianProcessRegressor:
    """The process that explains the ``gains`` [n] of ``inputs`` [n, d] best, among all hyperparameters."""
    fits = [_fit(inputs, gains, *each) for each in product(_LENGTHS, _MEMORIES, _NOISES)]
    return max(fits, key=lambda each: float(each.log_marginal_likelihood_value_))


def highest_bound(model: GaussianProcessRegressor, busy: Floats, points: Floats) -> int:
    """Which of the ``points`` [m, d] has the highest upper confidence bound of its gain.

    ``busy`` [b, d] points are about to be tried, and lower the uncertainty around them (Desautels et al. 2014,
    "Parallelizing exploration-exploitation tradeoffs").
    """
    inputs, gains = model.X_train_, model.y_train_
    if len(busy):
        believed = np.concatenate([gains, model.predict(busy)])
        model = clone(model).fit(np.concatenate([inputs, busy]), believed)
    mean, deviation = model.predict(points, return_std=True)
    beta = _BETA[0] + max(0.0, math.log(_BETA[1] * len(gains)))
    return int(np.argmax(mean + math.sqrt(beta) * deviation))


def _fit(inputs: Floats, gains: Floats, length: float, memory: float, noise: float) -> GaussianProcessRegressor:
    """A process over points of time, score before and fields, with these hyperparameters."""
    fields = inputs.shape[1] - 2
    kernel = RBF([_FAR, _SCORE_LENGTH, *[length] * fields]) * Matern([memory, _FAR, *[_FAR] * fields], nu=0.5)
    return GaussianProcessRegressor(kernel, alpha=noise, optimizer=None).fit(inputs, gains)


def _within(groups: npt.NDArray[np.int64], values: Floats) -> Floats:
    """Values minus the mean of their group, over its standard deviation."""
    result = np.zeros(len(values))
    for group in np.unique(groups):
        of_group = groups == group
        result[of_group] = (values[of_group] - values[of_group].mean()) / (values[of_group].std() or 1.0)
    return result

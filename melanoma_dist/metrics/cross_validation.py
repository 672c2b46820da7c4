"""How far a figure spreads over folds and seeds, and what that allows to say."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from melanoma_dist.errors import ConfigError


@dataclass(frozen=True)
class OverFolds:
    """A figure over folds with its 95 % interval."""

    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class FoldSpread:
    """A metric over the folds that define it. Fewer than two have no deviation and no interval."""

    mean: float | None
    sd: float | None
    """Sample standard deviation."""
    low: float | None
    high: float | None
    folds: int


@dataclass(frozen=True)
class Comparison:
    """The mean difference of two configurations over the same folds, with its 95 % interval."""

    difference: float
    low: float
    high: float

    @property
    def separable(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class VarianceComponents:
    """Where the variance of a figure comes from. Each is a variance, of the figure's square, not below 0."""

    mean: float
    folds: float
    """Between folds: some validation sets are harder than others, for every seed."""
    seeds: float
    """Between seeds, in all folds alike."""
    remainder: float
    """What is left: a seed that helps in one fold and harms in another. Repeating a training of one fold with another
    seed changes its figure by a variance of ``seeds + remainder``."""

    @property
    def within_fold(self) -> float:
        """Variance of one fold's figure over seeds."""
        return self.seeds + self.remainder


def over_folds(values: Sequence[float], repeats: int = 1) -> OverFolds:
    """Mean, standard deviation and corrected resampled t interval of a figure of k >= 2 folds, in any order.

    The correction of Nadeau and Bengio (2003, "Inference for the generalization error"): training sets of folds
    overlap, so the variance of the mean is that of the n values times (1/n + 1/(k - 1)), the latter being the share of
    validation to training images. With ``repeats`` R of the cross-validation n = k R (Bouckaert and Frank 2004,
    "Evaluating the replicability of significance tests for comparing learning algorithms"). Raises ConfigError for
    fewer than two folds.
    """
    folds, ragged = divmod(len(values), repeats)
    if folds < 2 or ragged:
        raise ConfigError(f"{len(values)} values are not {repeats} times the same 2 or more folds.")
    mean, sd = statistics.fmean(values), statistics.stdev(values)
    half = float(student.ppf(0.975, len(values) - 1)) * sd * math.sqrt(1 / len(values) + 1 / (folds - 1))
    return OverFolds(mean, sd, mean - half, mean + half)


def fold_spread(values: Sequence[float | None]) -> FoldSpread:
    """``over_folds`` of the values that are defined."""
    defined = [value for value in values if value is not None]
    mean = statistics.fmean(defined) if defined else None
    if len(defined) < 2:
        return FoldSpread(mean, None, None, None, len(defined))
    spread = over_folds(defined)
    return FoldSpread(mean, spread.sd, spread.low, spread.high, len(defined))


def compare(first: dict[int, float], second: dict[int, float]) -> Comparison:
    """Compare two configurations by their figures of the same k >= 2 folds: ``over_folds`` of the differences."""
    differences = over_folds([first[fold] - second[fold] for fold in first])
    return Comparison(differences.mean, differences.low, differences.high)


def variance_components(values: Sequence[Sequence[float]]) -> VarianceComponents:
    """Folds against seeds, for the figures [k folds, R seeds] of R trainings of each of the same k folds.

    Two-way random effects without replication, by the estimators of the analysis of variance (Searle, Casella and
    McCulloch 1992, "Variance components"): the expected mean squares are remainder + R folds, remainder + k seeds, and
    remainder. A negative estimate is told as 0. Raises ConfigError for fewer than two folds or seeds, or a ragged
    table.
    """
    if len({len(row) for row in values}) != 1 or len(values) < 2 or len(values[0]) < 2:
        raise ConfigError("Variance components need at least 2 folds, each with the same 2 or more seeds.")
    table = np.asarray(values, dtype=np.float64)
    folds, seeds = table.shape
    by_fold, by_seed, mean = table.mean(axis=1), table.mean(axis=0), float(table.mean())
    rest = table - by_fold[:, None] - by_seed + mean
    remainder = float((rest**2).sum()) / ((folds - 1) * (seeds - 1))
    of_folds = (seeds * float(by_fold.var(ddof=1)) - remainder) / seeds
    of_seeds = (folds * float(by_seed.var(ddof=1)) - remainder) / folds
    return VarianceComponents(mean, max(of_folds, 0.0), max(of_seeds, 0.0), remainder)

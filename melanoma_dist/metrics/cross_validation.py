"""Estimate how a metric varies over folds and seeds: intervals, paired comparisons, variance components."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t as student

from melanoma_dist.errors import ConfigError
from melanoma_dist.metrics.intervals import logit_interval

FEWEST_FOLDS = 5
"""Folds that the interval of a mean needs. With 3, Student's t alone makes it more than twice as wide as with 10."""


@dataclass(frozen=True)
class OverFolds:
    """The mean of a difference or of a metric over folds with its 95 % interval."""

    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class FoldSpread:
    """A metric of 0 to 1 over the folds that define it. One fold has no deviation."""

    mean: float | None
    sd: float | None
    """Sample standard deviation."""
    low: float | None
    high: float | None
    folds: int

    @property
    def no_interval(self) -> str:
        """Why it has no interval."""
        if self.folds < FEWEST_FOLDS:
            return f"an interval needs {FEWEST_FOLDS} folds that define it; here are {self.folds}"
        return f"every fold has {self.mean:g}, which says nothing about other images"


@dataclass(frozen=True)
class Comparison:
    """The mean difference of two configurations over the same folds, with its 95 % interval."""

    difference: float
    low: float
    high: float

    @property
    def separable(self) -> bool:
        """Whether the interval excludes zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class VarianceComponents:
    """The sources of a metric's variance. Each is a variance, in the metric's squared unit, at least 0."""

    mean: float
    folds: float
    """Between folds: some validation sets are harder than others, for every seed."""
    seeds: float
    """Between seeds, in all folds alike."""
    remainder: float
    """The rest: a seed helps in one fold and harms in another. Training one fold with another seed varies its metric by
    ``seeds + remainder``."""

    @property
    def within_fold(self) -> float:
        """Variance of one fold's metric over seeds."""
        return self.seeds + self.remainder


def over_folds(values: Sequence[float], repeats: int = 1) -> OverFolds:
    """Return mean, standard deviation and corrected resampled t interval of a metric of k >= 2 folds, in any order.

    Training sets of folds overlap, so 1/n of the variance of the n values underestimates that of their mean. Nadeau and
    Bengio (2003, "Inference for the generalization error") multiply it by 1/n + 1/(k - 1); the second term is the ratio
    of validation to training images. With ``repeats`` R of the cross-validation n = k R (Bouckaert and Frank 2004,
    "Evaluating the replicability of significance tests for comparing learning algorithms"). The interval is on the
    scale of the values, which suits differences. Raises ConfigError for fewer than two folds.
    """
    folds, ragged = divmod(len(values), repeats)
    if folds < 2 or ragged:
        raise ConfigError(f"{len(values)} values are not {repeats} times the same 2 or more folds.")
    mean, sd = statistics.fmean(values), statistics.stdev(values)
    half = float(student.ppf(0.975, len(values) - 1)) * sd * math.sqrt(1 / len(values) + 1 / (folds - 1))
    return OverFolds(mean, sd, mean - half, mean + half)


def fold_spread(values: Sequence[float | None], repeats: int = 1) -> FoldSpread:
    """Apply ``over_folds`` to the defined values of a metric of 0 to 1, with its interval on the logit scale.

    Few folds have no interval: Student's t would make it as wide as the scale.
    """
    defined = [value for value in values if value is not None]
    mean, folds = statistics.fmean(defined) if defined else None, len(defined) // repeats
    if mean is None or folds < 2:
        return FoldSpread(mean, None, None, None, folds)
    spread = over_folds(defined, repeats)
    ends = logit_interval(mean, spread.high - mean) if folds >= FEWEST_FOLDS else None
    low, high = ends or (None, None)
    return FoldSpread(mean, spread.sd, low, high, folds)


def compare(first: dict[int, float], second: dict[int, float]) -> Comparison:
    """Compare two configurations by a metric of the same k >= 2 folds: ``over_folds`` of the differences."""
    differences = over_folds([first[fold] - second[fold] for fold in first])
    return Comparison(differences.mean, differences.low, differences.high)


def variance_components(values: Sequence[Sequence[float]]) -> VarianceComponents:
    """Separate fold variance from seed variance, for a metric [k folds, R seeds] of R trainings of the same k folds.

    Fits two-way random effects without replication by the estimators of the analysis of variance (Searle, Casella and
    McCulloch 1992, "Variance components"): the expected mean squares are remainder + R folds, remainder + k seeds, and
    remainder. A negative estimate becomes 0. Raises ConfigError for fewer than two folds or seeds, or a ragged
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

"""Bootstrap metrics over lesions.

Images of one lesion are not independent, so a resample draws whole groups: drawing images would make intervals too
narrow. It draws within strata of the diagnosis, so that a rare label keeps its number of groups in every resample.
The predictions are fixed. An interval thus covers the choice of lesions, not the variance between trainings, which
``cross_validation`` estimates.

Shapes: n images, L labels, G groups, R resamples, C columns.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.metrics.classification import PerMetric, Settings
from melanoma_dist.metrics.intervals import LEVEL, Interval, MetricInterval, Undefined, bounds, interval, tail
from melanoma_dist.metrics.weighted import ISIC_SCORES, Weighted

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.integer[Any]]
RESAMPLES = 2000
PROPORTIONS = ("precision", "sensitivity", "specificity")
BLOCK = 32  # resamples at a time, whose counts fit a cache; each block has a random stream of its own


@dataclass(frozen=True)
class BootstrapIntervals:
    """The intervals of one set of predictions."""

    rows: dict[str, PerMetric[MetricInterval]]
    """By label, then ``macro`` and ``micro``."""
    isic_scores: dict[str, MetricInterval]
    """By challenge."""


@dataclass(frozen=True)
class Bootstrap:
    """Every metric of every resample."""

    columns: tuple[tuple[str, str], ...]
    """The row and metric of each row of ``samples``. Rows are the labels, macro, micro and isic_scores."""
    estimate: Floats
    """Of all images, [C], NaN where not defined."""
    samples: Floats
    """Of each resample, [C, R], NaN where not defined."""
    groups: Ints
    """How many groups each row rests on, [C] (see ``evidence``)."""
    drawn: str
    """Fingerprint of truth, groups and draws. Two bootstraps with the same one are paired, resample by resample."""
    differences: bool = False
    """Whether these are the differences of two sets of predictions."""

    def intervals(self, level: float = LEVEL) -> BootstrapIntervals:
        """Return percentile intervals of the defined resamples, expanded as ``intervals.tail`` describes."""
        if not 0 < level < 1:
            raise ConfigError.of("level", level, "must be above 0 and below 1")
        rows: dict[str, dict[str, MetricInterval]] = defaultdict(dict)
        each = zip(self.columns, self.estimate, self.samples, self.groups, strict=True)
        for (row, metric), estimate, values, groups in each:
            rows[row][metric] = self._interval(metric, float(estimate), values, int(groups), level)
        scores = rows.pop(ISIC_SCORES, {})
        return BootstrapIntervals({row: PerMetric(**each) for row, each in rows.items()}, scores)

    def _interval(self, metric: str, estimate: float, values: Floats, groups: int, level: float) -> MetricInterval:
        defined = values[np.isfinite(values)]
        undefined = len(values) - len(defined)
        if not np.isfinite(estimate):
            return MetricInterval(None, None, None, undefined)
        if not len(defined):
            return MetricInterval(estimate, None, None, undefined)
        extreme = not self.differences and metric in PROPORTIONS and estimate in (0, 1)
        return MetricInterval(estimate, *bounds(estimate, defined, groups, level, extreme), undefined)


def bootstrap(
    truth: Floats,
    probability: Floats,
    group: npt.NDArray[Any],
    labels: tuple[str, ...],
    settings: Settings,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Bootstrap:
    """Resample groups within their strata (see ``strata_of``), and compute all metrics each time.

    Truth and probability are [n, L], ``group`` [n] any names. The same truth, groups and seed draw the same groups,
    whatever the probabilities. Strata keep the prevalence of the data. Raises ConfigError for no resamples and
    DataError for no images.
    """
    if not len(truth):
        raise DataError("There are no predictions to resample.")
    number, names = pd.factorize(np.asarray(group), sort=True)
    weighted = Weighted(truth, probability, number, labels, settings)
    blocks = [weighted.of(weights) for weights in draws(strata_of(truth, number), resamples, seed)]
    estimate = weighted.of(np.ones((len(names), 1), dtype=np.float32))[:, 0]
    drawn = hashlib.sha256(f"{seed} {resamples}".encode() + number.tobytes() + truth.tobytes()).hexdigest()
    columns = tuple(weighted.columns)
    called = probability >= np.asarray(settings.threshold_of(labels), dtype=probability.dtype)
    rests_on = evidence(truth, called, number, labels, columns)
    return Bootstrap(columns, estimate, np.concatenate(blocks, axis=1), rests_on, drawn)


def roc_band(
    truth: Floats,
    probability: Floats,
    group: npt.NDArray[Any],
    column: int,
    specificities: Floats,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> tuple[Floats, Floats]:
    """Return both ends of the interval of a label's sensitivity at each specificity: a pointwise band of its ROC curve.

    Truth and probability are [n, L], as for ``bootstrap``, which draws the same resamples; ``column`` is the label's.
    The label needs positives and negatives.
    """
    number = pd.factorize(np.asarray(group), sort=True)[0]
    known = np.flatnonzero(~np.isnan(truth[:, column]))
    order = known[np.argsort(-probability[known, column], kind="stable")]
    score, positive = probability[order, column], truth[order, column] == 1
    last = np.append(np.diff(score) != 0, True)  # of equal probabilities, which a threshold calls together
    curves = []
    for block in draws(strata_of(truth, number), resamples, seed):
        weights = block[number[order]].astype(np.float64)
        true, false = (np.cumsum(weights * kind[:, None], axis=0)[last] for kind in (positive, ~positive))
        with np.errstate(invalid="ignore"):  # a resample without positives
            shares = (false / false[-1]).T, (true / true[-1]).T
        curves += [np.interp(1 - specificities, [0, *x], [0, *y]) for x, y in zip(*shares, strict=True)]
    groups = min(len(np.unique(number[order][kind])) for kind in (positive, ~positive))
    share = tail(level, groups)
    low, high = np.nanquantile(np.array(curves), [share, 1 - share], axis=0)
    return low, high


def ratios(
    parts: Mapping[str, tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]],
    group: Ints,
    weights: Sequence[npt.NDArray[np.float32]],
    level: float = LEVEL,
) -> dict[str, Interval | Undefined]:
    """Return shares of images with their intervals over groups, by name.

    ``parts``: for each name the images in the numerator and in the denominator, bool [n] both. ``group`` [n] numbers
    the groups, ``weights`` are the blocks of ``draws``. A share is undefined where the denominator is empty, or empty
    in most resamples.
    """
    shares = {name: (part.astype(np.float64), whole.astype(np.float64)) for name, (part, whole) in parts.items()}
    return _quotients(shares, group, weights, level, proportion=True)


def means(
    values: Mapping[str, Floats], group: Ints, weights: Sequence[npt.NDArray[np.float32]], level: float = LEVEL
) -> dict[str, Interval | Undefined]:
    """Return means over images with their intervals over groups, by name; ``group`` and ``weights`` as for ``ratios``.

    ``values``: one number per image, float [n]; NaN where it is not defined, which leaves the image out.
    """
    sums = {name: (np.nan_to_num(value.astype(np.float64)), 1.0 - np.isnan(value)) for name, value in values.items()}
    return _quotients(sums, group, weights, level, proportion=False)


def _quotients(
    parts: Mapping[str, tuple[Floats, Floats]],
    group: Ints,
    weights: Sequence[npt.NDArray[np.float32]],
    level: float,
    proportion: bool,
) -> dict[str, Interval | Undefined]:
    """The quotient of two sums over images, float64 [n] each, by name, with its interval over groups."""
    groups = len(weights[0])
    sums = np.stack([np.bincount(group, each, minlength=groups) for pair in parts.values() for each in pair])
    drawn, every = np.concatenate([sums @ block for block in weights], axis=1), sums.sum(axis=1)
    intervals = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        for at, name in zip(range(0, len(sums), 2), parts, strict=True):
            rests_on = int(np.count_nonzero(sums[at + 1]))
            share, samples = every[at] / every[at + 1], drawn[at] / drawn[at + 1]
            intervals[name] = interval(share, samples, rests_on, level, proportion)
    return intervals


def difference(first: Bootstrap, second: Bootstrap) -> Bootstrap:
    """Subtract the second from the first, resample by resample: the paired bootstrap of two sets of predictions.

    Raises DataError unless both drew the same groups and have the same metrics.
    """
    if first.drawn != second.drawn or first.columns != second.columns:
        raise DataError("Only predictions of the same images, labels and resamples can be compared in pairs.")
    estimate, samples = first.estimate - second.estimate, first.samples - second.samples
    return Bootstrap(first.columns, estimate, samples, first.groups, first.drawn, differences=True)


def evidence(
    truth: Floats,
    called: npt.NDArray[np.bool_],
    group: Ints,
    labels: tuple[str, ...],
    columns: tuple[tuple[str, str], ...],
) -> Ints:
    """Count the groups that each column rests on, [C], for truth and calls [n, L] and numbers of groups [n].

    A sensitivity rests on the groups with positives, a specificity on those with negatives, a precision on those with
    calls, and a mean over images (Brier score, calibration error) on all. Any other metric rests on the groups with
    positives or with negatives, whichever are fewer, and a mean over labels on the groups of its rarest label.
    """
    rows = (*labels, "micro")
    positive, negative, known, calls = (
        np.array([len(np.unique(group[answers])) for answers in (*kind.T, kind.any(axis=1))])
        for kind in (truth == 1, truth == 0, ~np.isnan(truth), called & ~np.isnan(truth))
    )
    both = (positive > 0) & (negative > 0)
    fewer = np.where(both, np.minimum(positive, negative), known)
    means = {"brier": known, "calibration_error": known}
    by_metric = {"sensitivity": positive, "specificity": negative, "precision": calls, **means}
    fewest_groups = []
    for row, metric in columns:
        counts = by_metric.get(metric, fewer)
        fewest_groups.append(counts[rows.index(row)] if row in rows else counts[counts > 0].min(initial=len(group)))
    return np.array(fewest_groups)


def strata_of(truth: Floats, group: Ints) -> Ints:
    """Return the stratum of each group, [G], for truth [n, L] and numbers of groups [n]; -1 for groups without a label.

    The stratum is the rarest label of the group's images (rarest by groups; the first of equally rare ones). Where each
    lesion has one diagnosis, a resample thus has as many lesions of each diagnosis as the data. A stratum of one group
    always draws that group: the metrics of its label vary with the other groups alone.
    """
    groups = int(group.max()) + 1
    present = np.zeros((groups, truth.shape[1]), dtype=bool)
    np.logical_or.at(present, group, truth == 1)
    order = np.argsort(present.sum(axis=0), kind="stable")
    return np.where(present.any(axis=1), order[np.argmax(present[:, order], axis=1)], -1)


def draws(strata: Ints, resamples: int, seed: int) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the weights of all resamples, [G, up to BLOCK] at a time. Raises ConfigError for no resamples."""
    if resamples < 1:
        raise ConfigError.of("resamples", resamples, "must be at least 1")
    for at, start in enumerate(range(0, resamples, BLOCK)):
        yield draw(strata, min(BLOCK, resamples - start), np.random.default_rng([seed, at]))


def draw(strata: Ints, resamples: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """Draw groups with replacement, as many as each stratum has; return each group's count per resample, [G, R]."""
    weights = np.empty((len(strata), resamples), dtype=np.float32)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        chosen = rng.integers(len(members), size=(len(members), resamples)) * resamples + np.arange(resamples)
        counts = np.bincount(chosen.ravel(), minlength=len(members) * resamples)
        weights[members] = counts.reshape(len(members), resamples)
    return weights

"""The bootstrap over lesions: images of one lesion are not independent evidence, so they are drawn together.

The predictions stay as they are. So an interval covers the choice of lesions, not the variance between trainings: see
``cross_validation`` for that.

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
from melanoma_dist.metrics.intervals import LEVEL, Interval, MetricInterval, Undefined, bounds, interval
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
    """By label, and of ``macro`` and ``micro``."""
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
    """Fingerprint of truth, groups and draws: two with the same are paired, resample by resample."""
    differences: bool = False
    """Whether these are the differences of two sets of predictions."""

    def intervals(self, level: float = LEVEL) -> BootstrapIntervals:
        """Percentile intervals over the resamples that define the metric, expanded as ``intervals.tail`` describes."""
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
    whatever the probabilities. Prevalence is that of the data, as strata keep it. Raises ConfigError for no resamples
    and DataError for no images.
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


def ratios(
    parts: Mapping[str, tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]],
    group: Ints,
    weights: Sequence[npt.NDArray[np.float32]],
    level: float = LEVEL,
) -> dict[str, Interval | Undefined]:
    """Shares of images with their intervals over groups, by name.

    ``parts``: for each name the images in the numerator and in the denominator, bool [n] both. ``group`` [n] numbers
    the groups, ``weights`` are the blocks of ``draws``. A share is undefined where the denominator is empty, or empty
    in most resamples.
    """
    groups = len(weights[0])
    counts = np.stack([np.bincount(group, mask, minlength=groups) for pair in parts.values() for mask in pair])
    drawn, every = np.concatenate([counts @ block for block in weights], axis=1), counts.sum(axis=1)
    intervals = {}
    with np.errstate(invalid="ignore", divide="ignore"):
        for at, name in zip(range(0, len(counts), 2), parts, strict=True):
            rests_on = int(np.count_nonzero(counts[at + 1]))
            share, samples = every[at] / every[at + 1], drawn[at] / drawn[at + 1]
            intervals[name] = interval(share, samples, rests_on, level, proportion=True)
    return intervals


def difference(first: Bootstrap, second: Bootstrap) -> Bootstrap:
    """First less second, resample by resample: the paired bootstrap of two sets of predictions of the same images.

    Raises DataError unless both drew the same groups and have the same figures.
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
    """How many groups each column rests on, [C], for truth and calls [n, L] and numbers of groups [n].

    Those with positives for a sensitivity, with negatives for a specificity, with calls for a precision, all for what
    is a mean over images (Brier score, calibration error), the fewer of positives and negatives for any other figure. A
    mean over labels rests on those of its rarest label.
    """
    rows = (*labels, "micro")
    positive, negative, known, calls = (
        np.array([len(np.unique(group[answers])) for answers in (*kind.T, kind.any(axis=1))])
        for kind in (truth == 1, truth == 0, ~np.isnan(truth), called & ~np.isnan(truth))
    )
    both = (positive > 0) & (negative > 0)
    fewer = np.where(both, np.minimum(positive, negative), known)
    means = {"brier": known, "calibration_error": known}
    of_figure = {"sensitivity": positive, "specificity": negative, "precision": calls, **means}
    fewest_groups = []
    for row, figure in columns:
        counts = of_figure.get(figure, fewer)
        fewest_groups.append(counts[rows.index(row)] if row in rows else counts[counts > 0].min(initial=len(group)))
    return np.array(fewest_groups)


def strata_of(truth: Floats, group: Ints) -> Ints:
    """The stratum of each group, [G], for truth [n, L] and numbers of groups [n].

    A group lies in the stratum of the rarest label that one of its images has (rarest by groups; the first of equally
    rare ones), or in that of none. So where each lesion has one diagnosis, a resample has as many lesions of each as
    the data. A stratum of one group is drawn as it is: its label's figures vary with the others alone.
    """
    groups = int(group.max()) + 1
    present = np.zeros((groups, truth.shape[1]), dtype=bool)
    np.logical_or.at(present, group, truth == 1)
    order = np.argsort(present.sum(axis=0), kind="stable")
    return np.where(present.any(axis=1), order[np.argmax(present[:, order], axis=1)], -1)


def draws(strata: Ints, resamples: int, seed: int) -> Iterator[npt.NDArray[np.float32]]:
    """The weights of all resamples, [G, up to BLOCK] at a time. Raises ConfigError for no resamples."""
    if resamples < 1:
        raise ConfigError.of("resamples", resamples, "must be at least 1")
    for at, start in enumerate(range(0, resamples, BLOCK)):
        yield draw(strata, min(BLOCK, resamples - start), np.random.default_rng([seed, at]))


def draw(strata: Ints, resamples: int, rng: np.random.Generator) -> npt.NDArray[np.float32]:
    """How often each group is drawn in each resample, [G, R]: with replacement, as many of each stratum as it has."""
    weights = np.empty((len(strata), resamples), dtype=np.float32)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)
        chosen = rng.integers(len(members), size=(len(members), resamples)) * resamples + np.arange(resamples)
        counts = np.bincount(chosen.ravel(), minlength=len(members) * resamples)
        weights[members] = counts.reshape(len(members), resamples)
    return weights

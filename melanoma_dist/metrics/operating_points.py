"""Where to call a lesion positive: chosen on out-of-fold predictions, then frozen, then applied to images never seen.

A threshold that is chosen on the images it is judged by looks better than it is. So a point is chosen by ``choose``,
kept as JSON, and applied by ``apply`` elsewhere. A lesion is called if its probability is at least the
threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import confusion_matrix, roc_curve

from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.metrics.bootstrap import RESAMPLES, draws, ratios, strata_of
from melanoma_dist.metrics.intervals import Interval, Undefined

Floats = npt.NDArray[np.floating[Any]]
YOUDEN = "Youden"
Kind = Literal["sensitivity", "youden", "cost"]


@dataclass(frozen=True)
class Rule:
    """How a threshold is chosen."""

    kind: Kind
    value: float | None = None

    def __post_init__(self) -> None:
        if self.kind == "youden" and self.value is not None:
            raise ConfigError.of("value", self.value, "must not be given for youden")
        if self.kind == "sensitivity" and not (self.value is not None and 0 < self.value <= 1):
            raise ConfigError.of("value", self.value, "must be a sensitivity above 0 and at most 1")
        if self.kind == "cost" and not (self.value is not None and 0 < self.value < np.inf):
            raise ConfigError.of("value", self.value, "must be above 0: the cost of a miss in false alarms")

    @property
    def name(self) -> str:
        """For people."""
        if self.kind == "sensitivity":
            return f"sensitivity {self.value:.2f}"
        return YOUDEN if self.kind == "youden" else f"a miss costs {self.value:g} false alarms"


def fixed_sensitivity(sensitivity: float) -> Rule:
    """The highest threshold that reaches a sensitivity, above 0 and at most 1."""
    return Rule("sensitivity", sensitivity)


def youden() -> Rule:
    """The threshold of the greatest sensitivity + specificity - 1 (Youden 1950)."""
    return Rule("youden")


def cost_ratio(miss_in_false_alarms: float) -> Rule:
    """The threshold of the least cost where a missed positive costs as much as so many false alarms."""
    return Rule("cost", miss_in_false_alarms)


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and its out-of-fold sensitivity and specificity (optimistic, as they chose it)."""

    rule: Rule
    threshold: float
    sensitivity: float
    specificity: float
    positives: int
    negatives: int

    @property
    def name(self) -> str:
        """For people."""
        return self.rule.name


@dataclass(frozen=True)
class ConfusionCounts:
    """Counts of images at a threshold that was chosen on other images; shares are None where nothing is counted."""

    threshold: float
    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int

    @property
    def sensitivity(self) -> float | None:
        """Share of positives that are called."""
        return _share(self.true_positives, self.false_negatives)

    @property
    def specificity(self) -> float | None:
        """Share of negatives that are not called."""
        return _share(self.true_negatives, self.false_positives)

    @property
    def precision(self) -> float | None:
        """Share of those called that are positive."""
        return _share(self.true_positives, self.false_positives)


@dataclass(frozen=True)
class PointMetrics:
    """Images counted at an operating point, and shares with their intervals over groups."""

    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int
    sensitivity: Interval | Undefined
    specificity: Interval | Undefined
    precision: Interval | Undefined


@dataclass(frozen=True)
class EvaluatedPoint(OperatingPoint):
    """An operating point with its metrics on images that did not choose it."""

    counts: PointMetrics


def choose(truth: Floats, probability: Floats, rule: Rule) -> OperatingPoint:
    """The point of a rule, for truth (1, 0, NaN) and out-of-fold probability [n].

    Candidates are the probabilities that occur; of equally good ones it takes the highest, which calls fewest. Raises
    DataError unless positives and negatives are known.
    """
    actual, score = _known(truth, probability)
    if not actual.any() or actual.all():
        raise DataError("An operating point needs images known to have the label and images known not to.")
    false, true, thresholds = roc_curve(actual, score, drop_intermediate=False)
    false, true, thresholds = false[1:], true[1:], thresholds[1:]  # the first one calls nothing
    if rule.kind == "sensitivity" and rule.value is not None:  # which such a rule always has
        best = int(np.argmax(true >= rule.value - 1e-12))
    else:
        miss = (actual == 0).sum() / actual.sum() if rule.value is None else rule.value  # Youden weighs both alike
        cost = miss * (1 - true) * actual.sum() + false * (actual == 0).sum()
        best = int(np.argmax(cost <= cost.min() + 1e-9 * max(cost.min(), 1)))
    return OperatingPoint(
        rule,
        float(thresholds[best]),
        float(true[best]),
        float(1 - false[best]),
        int(actual.sum()),
        int((actual == 0).sum()),
    )


def apply(truth: Floats, probability: Floats, threshold: float) -> ConfusionCounts:
    """What a threshold chosen elsewhere does to truth (1, 0, NaN) and probability [n]."""
    actual, score = _known(truth, probability)
    called = score >= np.asarray(threshold, dtype=score.dtype)
    true_negatives, false_positives, false_negatives, true_positives = (
        confusion_matrix(actual, called, labels=[0, 1]).ravel().tolist() if len(actual) else [0] * 4
    )
    return ConfusionCounts(float(threshold), true_positives, false_positives, true_negatives, false_negatives)


def evaluate_points(
    points: Sequence[OperatingPoint],
    truth: Floats,
    probability: Floats,
    group: npt.NDArray[Any],
    column: int,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[EvaluatedPoint, ...]:
    """Apply a label's points to other images, for truth (1, 0, NaN), calibrated probability [n, L] and group [n].

    ``column`` is the label's. The resamples are those of ``bootstrap``, so that a share has the same interval in both.
    """
    number = pd.factorize(np.asarray(group), sort=True)[0]
    weights = list(draws(strata_of(truth, number), resamples, seed))
    truth, probability = truth[:, column], probability[:, column]
    evaluated = []
    for point in points:
        counts = apply(truth, probability, point.threshold)
        called = probability >= np.asarray(point.threshold, dtype=probability.dtype)
        parts = {
            "sensitivity": ((truth == 1) & called, truth == 1),
            "specificity": ((truth == 0) & ~called, truth == 0),
            "precision": ((truth == 1) & called, ~np.isnan(truth) & called),
        }
        metrics = PointMetrics(
            counts.true_positives,
            counts.false_positives,
            counts.true_negatives,
            counts.false_negatives,
            **ratios(parts, number, weights),
        )
        evaluated.append(EvaluatedPoint(**vars(point), counts=metrics))
    return tuple(evaluated)


@dataclass(frozen=True)
class DecisionCurve:
    """Net benefit of a model at each threshold, beside calling all; calling none has 0."""

    thresholds: tuple[float, ...]
    model: tuple[float, ...]
    call_all: tuple[float, ...]


def decision_curve(truth: Floats, probability: Floats, thresholds: Floats) -> DecisionCurve:
    """Net benefit per lesion, in true positives, for truth (1, 0, NaN) and calibrated probability [n].

    True positives less false ones weighed by the odds t / (1 - t) of the threshold, over n (Vickers and Elkin 2006,
    "Decision curve analysis"); ``thresholds`` are of 0 to below 1. Prevalence is that of the data. Raises ConfigError
    for other thresholds and DataError without known truths.
    """
    if ((thresholds < 0) | (thresholds >= 1)).any():
        raise ConfigError("thresholds of a decision curve must be 0 to below 1.")
    actual, score = _known(truth, probability)
    if not len(actual):
        raise DataError("A decision curve needs images whose truth is known.")
    odds = thresholds / (1 - thresholds)
    counts = [apply(actual, score, float(threshold)) for threshold in thresholds]
    true = np.array([point.true_positives for point in counts])
    false = np.array([point.false_positives for point in counts])
    net, every = (true - odds * false) / len(actual), actual.mean() - odds * (1 - actual.mean())
    return DecisionCurve(tuple(thresholds.tolist()), tuple(net.tolist()), tuple(every.tolist()))


def _known(truth: Floats, probability: Floats) -> tuple[Floats, Floats]:
    known = ~np.isnan(truth)
    return truth[known].astype(np.float64), probability[known]


def _share(part: int, rest: int) -> float | None:
    return part / (part + rest) if part + rest else None

"""All metrics of a set of predictions, per label, macro and micro, by scikit-learn wherever it has the metric.

Shapes: n images (or lesions), L labels. Truth is 1, 0 or NaN (unknown); probabilities are 0 to 1. Unknown truths never
count. A metric that the data does not define (an AUC without positives, a precision without a positive call) is None.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
from sklearn import metrics

from melanoma_dist.errors import ConfigError, TrainingError
from melanoma_dist.metrics.calibration import expected_calibration_error
from melanoma_dist.metrics.isic_scores import isic_scores

Floats = npt.NDArray[np.floating[Any]]
Value = TypeVar("Value", bound=float | None)
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class MetricValues:
    """Every metric of one label, or of a mean over labels. None: the data does not define it."""

    auc: float | None = None
    """Area under the ROC curve; ties count half."""
    average_precision: float | None = None
    """Sum of precision times gain in recall over the thresholds."""
    partial_auc_80: float | None = None
    """Area between the ROC curve and sensitivity 0.8, 0 to 0.2; chance has 0.02 (see ``partial_auc``)."""
    specificity_at_80: float | None = None
    """Highest specificity of a threshold whose sensitivity is at least 0.80; the next ones likewise."""
    specificity_at_82: float | None = None
    """0.82 is the mean sensitivity of eight dermatologists (Marchetti et al. 2018)."""
    specificity_at_89: float | None = None
    specificity_at_90: float | None = None
    specificity_at_95: float | None = None
    precision: float | None = None
    """At the label's threshold, as are the next ones: positive is called what has at least this probability."""
    sensitivity: float | None = None
    specificity: float | None = None
    f1: float | None = None
    balanced_accuracy: float | None = None
    ppv: float | None = None
    """Positive predictive value at the stated prevalence; None where none is stated."""
    npv: float | None = None
    """Negative predictive value, likewise."""
    brier: float | None = None
    """Mean square of probability minus truth."""
    calibration_error: float | None = None
    """See ``calibration.expected_calibration_error``."""

    def value(self, metric: str) -> float | None:
        """The metric of that name."""
        number: float | None = getattr(self, metric)
        return number


METRICS = tuple(field.name for field in fields(MetricValues))
SPECIFICITIES = {name: int(name[-2:]) / 100 for name in METRICS if name.startswith("specificity_at_")}
"""Metrics that state the specificity at a sensitivity, with that sensitivity."""
PARTIAL_FROM = 0.8
RANK_METRICS = ("auc", "average_precision", "partial_auc_80", *SPECIFICITIES)
"""Metrics that depend on the order of the probabilities alone."""


@dataclass(frozen=True, kw_only=True)
class PerMetric(Generic[T]):
    """Something about each metric, such as its interval. The attributes are those of ``MetricValues``."""

    auc: T
    average_precision: T
    partial_auc_80: T
    specificity_at_80: T
    specificity_at_82: T
    specificity_at_89: T
    specificity_at_90: T
    specificity_at_95: T
    precision: T
    sensitivity: T
    specificity: T
    f1: T
    balanced_accuracy: T
    ppv: T
    npv: T
    brier: T
    calibration_error: T

    def of(self, metric: str) -> T:
        """The attribute of that name."""
        item: T = getattr(self, metric)
        return item


@dataclass(frozen=True, kw_only=True)
class LabelMetrics(MetricValues):
    """The metrics of one label with the counts that they rest on."""

    positives: int
    negatives: int
    unknown: int
    called_positive: int

    def counts_alone(self) -> LabelMetrics:
        """The counts without the metrics."""
        return LabelMetrics(
            positives=self.positives,
            negatives=self.negatives,
            unknown=self.unknown,
            called_positive=self.called_positive,
        )


@dataclass(frozen=True, kw_only=True)
class MacroMetrics(MetricValues):
    """Means over labels."""

    label_counts: PerMetric[int]
    """Over how many labels each mean is."""


@dataclass(frozen=True, kw_only=True)
class Metrics:
    """All metrics of a set of predictions."""

    images: int
    labels: dict[str, LabelMetrics]
    macro: MacroMetrics
    """Over the labels with positives and negatives, as far as they define the metric."""
    micro: LabelMetrics
    """Every known answer to every label's question as one set; without PPV and NPV, as there is no one prevalence."""
    isic_scores: dict[str, float | None]
    """The challenges' scores that the labels allow, by challenge (see ``isic_scores``)."""


@dataclass(frozen=True)
class Settings:
    """Thresholds, prevalences and bins of the metrics."""

    thresholds: tuple[float, ...] = (0.5,)
    """Probability from which each label is called, in the labels' order; a single one holds for all."""
    prevalences: tuple[float | None, ...] | None = None
    """Share of the population that has each label, above 0 and below 1; one may hold for all. None: no PPV, NPV."""
    bins: int = 15
    """Bins of equal width of the calibration error."""

    def __post_init__(self) -> None:
        if self.prevalences is not None and not all(value is None or 0 < value < 1 for value in self.prevalences):
            raise ConfigError.of("prevalences", self.prevalences, "must be above 0 and below 1")
        if not all(0 <= value <= 1 for value in self.thresholds):
            raise ConfigError.of("thresholds", self.thresholds, "must be 0 to 1")
        if self.bins < 1:
            raise ConfigError.of("bins", self.bins, "must be at least 1")

    def threshold_of(self, labels: tuple[str, ...]) -> tuple[float, ...]:
        """A threshold for each label. Raises ConfigError unless there is one for all or one for each."""
        return _one_per_label("thresholds", self.thresholds, labels)

    def prevalence_of(self, labels: tuple[str, ...]) -> tuple[float | None, ...]:
        """A prevalence for each label, or None. Raises ConfigError unless there is one for all or one for each."""
        return (
            (None,) * len(labels)
            if self.prevalences is None
            else _one_per_label("prevalences", self.prevalences, labels)
        )


def compute_metrics(truth: Floats, probability: Floats, labels: tuple[str, ...], settings: Settings) -> Metrics:
    """All metrics, for truth and probability [n, L]. Raises TrainingError for predictions that are no probabilities."""
    check_probabilities(probability)
    thresholds, prevalences = settings.threshold_of(labels), settings.prevalence_of(labels)
    called = probability >= np.asarray(thresholds, dtype=probability.dtype)
    each = {
        label: label_metrics(truth[:, column], probability[:, column], called[:, column], prevalences[column], settings)
        for column, label in enumerate(labels)
    }
    return Metrics(
        images=len(truth),
        labels=each,
        macro=_macro(list(each.values())),
        micro=label_metrics(truth.ravel(), probability.ravel(), called.ravel(), None, settings),
        isic_scores=isic_scores(truth, probability, labels),
    )


def label_metrics(
    truth: Floats, probability: Floats, called: npt.NDArray[np.bool_], prevalence: float | None, settings: Settings
) -> LabelMetrics:
    """The metrics of one label, for truth, probability and calls [n]."""
    known = ~np.isnan(truth)
    actual, score, called = truth[known].astype(int), probability[known], called[known]
    brier = metrics.brier_score_loss(actual, score.astype(np.float64), labels=[0, 1]) if len(actual) else None
    return LabelMetrics(
        **_rank_metrics(actual, score),
        **_threshold_metrics(actual, called, prevalence),
        brier=None if brier is None else float(brier),
        calibration_error=expected_calibration_error(actual, score, settings.bins),
        positives=int(actual.sum()),
        negatives=int((1 - actual).sum()),
        unknown=int((~known).sum()),
        called_positive=int(called.sum()),
    )


def check_probabilities(probability: Floats) -> None:
    """Raise TrainingError unless all are finite numbers, 0 to 1: metrics never leave out an image."""
    if not (np.isfinite(probability).all() and (probability >= 0).all() and (probability <= 1).all()):
        raise TrainingError("Some predictions are not finite probabilities (0 to 1): no metric can be computed.")


def _rank_metrics(actual: npt.NDArray[np.int_], score: Floats) -> dict[str, float | None]:
    values: dict[str, float | None] = dict.fromkeys(RANK_METRICS)
    values["average_precision"] = float(metrics.average_precision_score(actual, score)) if actual.any() else None
    if not actual.any() or actual.all():
        return values
    values["auc"] = float(metrics.roc_auc_score(actual, score))
    values["partial_auc_80"] = partial_auc(actual, score, PARTIAL_FROM)
    false, true, _ = metrics.roc_curve(actual, score, drop_intermediate=False)
    for name, level in SPECIFICITIES.items():
        values[name] = float(1 - false[np.argmax(true >= level - 1e-12)])
    return values


def partial_auc(actual: npt.NDArray[np.int_], score: Floats, sensitivity: float) -> float:
    """Area between the ROC curve and a horizontal line at ``sensitivity``, of 0 to 1 - sensitivity.

    The score of ISIC 2024 (its public metric, for 0.8). scikit-learn has the area left of a false-positive rate; seen
    from the negatives the ROC curve is mirrored, and that is the area above a sensitivity. It comes standardised after
    McClish (1989), which is undone. The scorer of 2018 and 2019 names another area ``auc_sens_80``: what lies below the
    curve, down to the axis, from the point of sensitivity 0.8 on; it is 0.8 times the specificity there larger.
    """
    most = 1 - sensitivity
    standard = float(metrics.roc_auc_score(1 - actual, -score.astype(np.float64), max_fpr=most))
    chance = most**2 / 2
    return chance + (2 * standard - 1) * (most - chance)


def _threshold_metrics(
    actual: npt.NDArray[np.int_], called: npt.NDArray[np.bool_], prevalence: float | None
) -> dict[str, float | None]:
    some, positives, negatives = called.any(), actual.any(), (actual == 0).any()
    sensitivity = float(metrics.recall_score(actual, called)) if positives else None
    specificity = float(metrics.recall_score(actual, called, pos_label=0)) if negatives else None
    ppv, npv = predictive_values(sensitivity, specificity, prevalence)
    return {
        "precision": float(metrics.precision_score(actual, called)) if some else None,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "f1": float(metrics.f1_score(actual, called)) if some or positives else None,
        "balanced_accuracy": (sensitivity + specificity) / 2
        if sensitivity is not None and specificity is not None
        else None,
        "ppv": ppv,
        "npv": npv,
    }


def predictive_values(
    sensitivity: float | None, specificity: float | None, prevalence: float | None
) -> tuple[float | None, float | None]:
    """Positive and negative predictive value in a population of another prevalence, by Bayes' theorem.

    None where an argument is, and where nobody would be called positive (negative).
    """
    if sensitivity is None or specificity is None or prevalence is None:
        return None, None
    true, false = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    missed, spared = (1 - sensitivity) * prevalence, specificity * (1 - prevalence)
    return (
        true / (true + false) if true + false > 0 else None,
        spared / (spared + missed) if spared + missed > 0 else None,
    )


def _macro(entries: list[LabelMetrics]) -> MacroMetrics:
    # One set of labels for all metrics: a specificity of a label that no image has would be averaged in otherwise.
    entries = [entry for entry in entries if entry.positives and entry.negatives]
    means = {metric: mean_of_defined([entry.value(metric) for entry in entries]) for metric in METRICS}
    counts = PerMetric(**{metric: count for metric, (_, count) in means.items()})
    return MacroMetrics(**{metric: mean for metric, (mean, _) in means.items()}, label_counts=counts)


def mean_of_defined(values: Sequence[float | None]) -> tuple[float | None, int]:
    """The mean of the values that are not None, and how many these are."""
    defined = [value for value in values if value is not None]
    return (math.fsum(defined) / len(defined) if defined else None), len(defined)


def _one_per_label(name: str, values: tuple[Value, ...], labels: tuple[str, ...]) -> tuple[Value, ...]:
    if len(values) not in (1, len(labels)):
        raise ConfigError.of(name, values, f"must be one for all or one for each of the {len(labels)} labels")
    return values * len(labels) if len(values) == 1 else values

"""All figures of a set of predictions, per label, macro and micro, by scikit-learn wherever it has the figure.

Shapes: n images (or lesions), L labels. Truth is 1, 0 or NaN (unknown); probabilities are 0 to 1. What is unknown never
counts. A figure that the data does not define (an AUC without positives, a precision without a positive call) is None.

name                        definition
auc                         area under the ROC curve; ties count half
average_precision           sum of precision times gain in recall over the thresholds
partial_auc_80              area between the ROC curve and sensitivity 0.8, of 0 to 0.2; chance has 0.02
precision, sensitivity, specificity, f1, balanced_accuracy
                            at the label's threshold: positive is called what has at least this probability
ppv, npv                    predictive values at the stated prevalence; None where none is stated
brier                       mean square of probability minus truth
calibration_error           see ``calibration.expected_calibration_error``
specificity_at_80, ...      highest specificity of a threshold whose sensitivity is at least 0.80, ...
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from sklearn import metrics

from melanoma_dist.errors import ConfigError, TrainingError
from melanoma_dist.metrics.calibration import expected_calibration_error
from melanoma_dist.metrics.isic_scores import official_scores

Floats = npt.NDArray[np.floating[Any]]
Value = TypeVar("Value", bound=float | None)

SENSITIVITIES = (0.80, 0.82, 0.89, 0.90, 0.95)
"""Where specificity is told. 0.82 is the mean sensitivity of eight dermatologists (Marchetti et al. 2018)."""
SPECIFICITIES = {f"specificity_at_{100 * level:.0f}": level for level in SENSITIVITIES}
PARTIAL_FROM = 0.8
RANK_FIGURES = ("auc", "average_precision", "partial_auc_80", *SPECIFICITIES)
CALL_FIGURES = ("precision", "sensitivity", "specificity", "f1", "balanced_accuracy", "ppv", "npv")
FIGURES = (*RANK_FIGURES, *CALL_FIGURES, "brier", "calibration_error")


@dataclass(frozen=True)
class Settings:
    """What the figures are computed with."""

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
        return _spread("thresholds", self.thresholds, labels)

    def prevalence_of(self, labels: tuple[str, ...]) -> tuple[float | None, ...]:
        """A prevalence for each label, or None. Raises ConfigError unless there is one for all or one for each."""
        return (None,) * len(labels) if self.prevalences is None else _spread("prevalences", self.prevalences, labels)


def figures(truth: Floats, probability: Floats, labels: tuple[str, ...], settings: Settings) -> dict[str, Any]:
    """All figures, for truth and probability [n, L].

    ``labels``: for each label ``FIGURES`` and its counts. ``macro``: the mean over the labels of which there are
    positives and negatives, as far as they have the figure, and of how many it is. ``micro``: every known answer to
    every label's question as one set; it has no PPV and NPV, since there is no one prevalence. ``official``: the
    challenges' scores. Raises TrainingError for what is no probability.
    """
    check_probabilities(probability)
    thresholds, prevalences = settings.threshold_of(labels), settings.prevalence_of(labels)
    called = probability >= np.asarray(thresholds, dtype=probability.dtype)
    each = {
        label: label_figures(truth[:, column], probability[:, column], called[:, column], prevalences[column], settings)
        for column, label in enumerate(labels)
    }
    return {
        "images": len(truth),
        "labels": each,
        "macro": _macro(list(each.values())),
        "micro": label_figures(truth.ravel(), probability.ravel(), called.ravel(), None, settings),
        "official": official_scores(truth, probability, labels),
    }


def label_figures(
    truth: Floats, probability: Floats, called: npt.NDArray[np.bool_], prevalence: float | None, settings: Settings
) -> dict[str, Any]:
    """``FIGURES`` of one label and the counts they rest on, for truth, probability and calls [n]."""
    known = ~np.isnan(truth)
    actual, score, called = truth[known].astype(int), probability[known], called[known]
    positives, negatives = int(actual.sum()), int((1 - actual).sum())
    return {
        **_of_ranks(actual, score),
        **_of_calls(actual, called, prevalence),
        "brier": float(metrics.brier_score_loss(actual, score.astype(np.float64), labels=[0, 1]))
        if len(actual)
        else None,
        "calibration_error": expected_calibration_error(actual, score, settings.bins),
        "positives": positives,
        "negatives": negatives,
        "unknown": int((~known).sum()),
        "called_positive": int(called.sum()),
    }


def check_probabilities(probability: Floats) -> None:
    """Raise TrainingError unless all are finite numbers of 0 to 1: nothing is ever left out of a figure."""
    if not (np.isfinite(probability).all() and (probability >= 0).all() and (probability <= 1).all()):
        raise TrainingError("Some predictions are not finite probabilities: no figure can be computed from them.")


def _of_ranks(actual: npt.NDArray[np.int_], score: Floats) -> dict[str, float | None]:
    found: dict[str, float | None] = dict.fromkeys(RANK_FIGURES)
    found["average_precision"] = float(metrics.average_precision_score(actual, score)) if actual.any() else None
    if not actual.any() or actual.all():
        return found
    found["auc"] = float(metrics.roc_auc_score(actual, score))
    found["partial_auc_80"] = partial_auc(actual, score, PARTIAL_FROM)
    false, true, _ = metrics.roc_curve(actual, score, drop_intermediate=False)
    for name, level in SPECIFICITIES.items():
        found[name] = float(1 - false[np.argmax(true >= level - 1e-12)])
    return found


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


def _of_calls(
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


def _macro(entries: list[dict[str, Any]]) -> dict[str, Any]:
    # One set of labels for all figures: a specificity of a label that no image has would be averaged in otherwise.
    return macro_means([entry for entry in entries if entry["positives"] and entry["negatives"]], FIGURES)


def macro_means(entries: list[dict[str, Any]], names: tuple[str, ...]) -> dict[str, Any]:
    """The mean of each of ``names`` over the entries that define it, and ``<name>_labels``: how many these are."""
    macro: dict[str, Any] = {}
    for name in names:
        defined = [entry[name] for entry in entries if entry[name] is not None]
        macro[name] = math.fsum(defined) / len(defined) if defined else None
        macro[f"{name}_labels"] = len(defined)
    return macro


def _spread(name: str, values: tuple[Value, ...], labels: tuple[str, ...]) -> tuple[Value, ...]:
    if len(values) not in (1, len(labels)):
        raise ConfigError.of(name, values, f"must be one for all or one for each of the {len(labels)} labels")
    return values * len(labels) if len(values) == 1 else values

"""Metrics as cells and in sentences: their names, their intervals, and why one is undefined."""

from __future__ import annotations

from melanoma_dist.metrics.classification import LabelMetrics, MetricValues
from melanoma_dist.metrics.intervals import Interval, MetricInterval, Undefined
from melanoma_dist.pages.numbers import number, span
from melanoma_dist.pages.tables import Cell, measured, undefined

NOT_DEFINED = "not defined"
"""In sentences; in tables an en dash and the reason."""
NOT_BY_DATA = "these images do not define it"
NAMES = {
    "auc": "AUC",
    "average_precision": "average precision",
    "partial_auc_80": "partial AUC above sensitivity 0.80 (0 to 0.2)",
    "precision": "precision",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "f1": "F1",
    "balanced_accuracy": "balanced accuracy",
    "ppv": "PPV",
    "npv": "NPV",
    "brier": "Brier score",
    "calibration_error": "calibration error",
    "specificity_at_80": "specificity at sensitivity 0.80",
    "specificity_at_82": "specificity at sensitivity 0.82",
    "specificity_at_89": "specificity at sensitivity 0.89",
    "specificity_at_90": "specificity at sensitivity 0.90",
    "specificity_at_95": "specificity at sensitivity 0.95",
}
"""The metrics that pages show, by their keys in ``metrics.classification``."""
# What a metric needs: p positives, n negatives, c images called positive, e either of p and c, k any known truth.
# All others need positives and negatives.
_NEEDS = {"average_precision": "p", "sensitivity": "p", "specificity": "n", "precision": "c", "f1": "e",
          "brier": "k", "calibration_error": "k"}  # fmt: skip


def estimate_text(estimate: Interval | MetricInterval | None, interval: str = " (95 % interval {})") -> str:
    """Return an estimate with its interval for a sentence."""
    if estimate is None or estimate.estimate is None:
        return NOT_DEFINED
    ends = span(estimate.low, estimate.high)
    return number(estimate.estimate) + (interval.format(ends) if ends else "")


def estimate_cell(estimate: Interval | Undefined) -> Cell:
    """Return a cell with an estimate and its interval, or why it is undefined."""
    if isinstance(estimate, Undefined):
        return undefined(estimate.reason)
    return measured(estimate.estimate, "", estimate.low, estimate.high)


def why_undefined(name: str, entry: MetricValues) -> str:
    """Return why a metric of an entry is None, from the entry's counts."""
    if not isinstance(entry, LabelMetrics):
        return "no label defines it"
    if name in ("ppv", "npv"):
        return "no prevalence is stated"
    positives, negatives, called = entry.positives, entry.negatives, entry.called_positive
    if not positives + negatives:
        return "no truth is known"
    needs = _NEEDS.get(name, "pn")
    if "p" in needs and not positives:
        return "no image has it"
    if "n" in needs and not negatives:
        return "all images have it"
    if "c" in needs and not called:
        return "no image is called positive"
    if "e" in needs and not (positives or called):
        return "no image has it and none is called positive"
    return NOT_BY_DATA

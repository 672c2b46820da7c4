"""Show an evaluation in the terminal: metrics per label with intervals, and the operating points."""

from __future__ import annotations

from melanoma_dist import console
from melanoma_dist.artifacts.assessment import Assessment
from melanoma_dist.artifacts.evaluation import EvaluationRecord, EvaluationResults
from melanoma_dist.data.manifest import SYNTHETIC
from melanoma_dist.evaluate.summary import SHOWN, number, with_interval
from melanoma_dist.metrics.classification import MetricValues
from melanoma_dist.metrics.intervals import Interval, Undefined
from melanoma_dist.metrics.operating_points import EvaluatedPoint

METRICS_HEADER = (
    "calibrated, per image", "AUC (95 % interval)", "AP", "precision", "recall", "specificity", "threshold",
    "positives", "negatives",
)  # fmt: skip
"""The header of ``metric_rows``."""


def show(record: EvaluationRecord, results: EvaluationResults, headline: str) -> None:
    """Print the tables of a finished evaluation. ``headline``: the label that leads."""
    mark = f" — {SYNTHETIC}" if record.synthetic else ""
    title = f"{record.name}: ensemble of the folds{mark}"
    console.table(title, METRICS_HEADER, [*metric_rows(results.ensemble), *_fold_rows(results, headline)])
    if results.prevalence is not None:
        console.info(_predictive_values(results, headline))
    for label, why in record.labels_absent.items():
        console.info(f"{label}: not evaluated, as {why}.")
    points = results.operating_points[headline]
    if isinstance(points, Undefined):
        console.info(f"No operating points of {headline}: {points.reason}")
        return
    header = [f"{headline}, chosen out of fold", "threshold", "sensitivity", "specificity", "precision"]
    console.table(f"Operating points, fixed before this evaluation{mark}", header, [_point(point) for point in points])


def metric_rows(assessment: Assessment) -> list[list[str]]:
    """The metrics per image of each label, and their mean over several labels."""
    metrics, thresholds = assessment.by_image, assessment.thresholds
    rows = []
    for label, entry in metrics.labels.items():
        auc = with_interval(metrics.intervals[label].auc)
        counts = [str(entry.positives), str(entry.negatives)]
        rows.append([label, auc, *_values(entry)[1:], f"{thresholds[label]:.4f}", *counts])
    if len(rows) > 1:
        rows.append(["macro", with_interval(metrics.intervals["macro"].auc), *_values(metrics.macro)[1:], "", "", ""])
    return rows


def _fold_rows(results: EvaluationResults, headline: str) -> list[list[str]]:
    return [
        [f"{headline}, fold {fold} alone", *_values(alone.labels[headline]), "", "", ""]
        for fold, alone in results.folds.items()
    ]


def _values(entry: MetricValues) -> list[str]:
    return [number(entry.value(metric)) for metric in SHOWN]


def _predictive_values(results: EvaluationResults, headline: str) -> str:
    values = results.ensemble.by_image.intervals[headline]
    return (
        f"{headline} at the stated prevalence of {results.prevalence:g}, threshold "
        f"{results.ensemble.thresholds[headline]:.4f}: PPV {with_interval(values.ppv)}, "
        f"NPV {with_interval(values.npv)}"
    )


def _point(point: EvaluatedPoint) -> list[str]:
    shares = (point.counts.sensitivity, point.counts.specificity, point.counts.precision)
    return [point.name, f"{point.threshold:.4f}", *(_share(share) for share in shares)]


def _share(share: Interval | Undefined) -> str:
    return "–" if isinstance(share, Undefined) else with_interval(share)

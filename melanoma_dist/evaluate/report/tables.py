"""The tables of a report, from a run's summary and its evaluations."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from melanoma_dist.artifacts.assessment import AssessedMetrics, Assessment, DelongInterval
from melanoma_dist.artifacts.summary import FoldTraining
from melanoma_dist.evaluate.report.cells import NAMES, NOT_BY_DATA, estimate_cell, why_undefined
from melanoma_dist.evaluate.report.run_results import Evaluation
from melanoma_dist.metrics.classification import (
    METRICS,
    LabelMetrics,
    Metrics,
    MetricValues,
    PerMetric,
    predictive_values,
)
from melanoma_dist.metrics.cross_validation import FoldSpread, VarianceComponents
from melanoma_dist.metrics.intervals import Interval, MetricInterval, Undefined
from melanoma_dist.metrics.operating_points import EvaluatedPoint, OperatingPoint
from melanoma_dist.metrics.subgroups import Gap, Subgroup
from melanoma_dist.pages.numbers import number, signed, span
from melanoma_dist.pages.tables import Cell, Table, measured, plain, undefined

MAIN = ("auc", "average_precision", "sensitivity", "specificity", "precision", "f1", "balanced_accuracy")
MORE = ("partial_auc_80", "specificity_at_80", "specificity_at_82", "specificity_at_89", "specificity_at_90",
        "specificity_at_95", "brier", "calibration_error")  # fmt: skip
PREVALENCES = (0.01, 0.05, 0.20)
"""Of a cancer, in round numbers: a screened population, a referred one, and a clinic for pigmented lesions."""
Unit = Literal["image", "lesion"]
UNITS: tuple[Unit, ...] = ("image", "lesion")
_ISIC = {"isic2017": "ISIC 2017: mean AUC", "isic2018": "ISIC 2018: balanced accuracy",
         "isic2019": "ISIC 2019: balanced accuracy"}  # fmt: skip
_FOLD = ("auc", "average_precision", "sensitivity", "specificity", "precision")
_NO_LABEL = "the data does not have this label"
_FEW_FOLDS = "fewer than two folds define it"
_NO_FOLD = "no fold defines it"


def metrics_table(
    assessment: Assessment, unit: Unit, columns: Sequence[str], absent: Mapping[str, str], where: str
) -> Table:
    """Return metrics with bootstrap intervals, a row per label, macro and micro.

    ``absent`` has the labels without known truth and the reasons. A table with the AUC has its DeLong interval and the
    counts of images, too.
    """
    metrics, counted = _of_unit(assessment, unit), "auc" in columns
    parts: dict[str, MetricValues] = {**metrics.labels}
    if len(parts) > 1:
        parts |= {"macro": metrics.macro, "micro": metrics.micro}
    rows = []
    for name, entry in parts.items():
        if name in absent:
            rows.append([plain(name), *[undefined(absent[name])] * (len(columns) + 3 * counted)])
            continue
        cells = [_metric(metric, entry, metrics.intervals[name]) for metric in columns]
        if counted:
            cells.insert(1, _delong(metrics.delong.get(name)))
            cells += _counts(entry)
        rows.append([plain(name), *cells])
    header = ["", *(NAMES[name] for name in columns)]
    if counted:
        header = [*header[:2], "AUC, DeLong interval", *header[2:], "positives of known", "unknown"]
    further = "" if counted else ", further metrics"
    return Table(f"{where}, per {unit}{further}", header, rows)


def _of_unit(assessment: Assessment, unit: Unit) -> AssessedMetrics:
    return assessment.by_image if unit == "image" else assessment.by_lesion


def _counts(entry: MetricValues) -> list[Cell]:
    if not isinstance(entry, LabelMetrics):  # a mean over labels
        return [plain(""), plain("")]
    known = entry.positives + entry.negatives
    return [plain(f"{entry.positives:,} of {known:,}"), plain(entry.unknown)]


def _metric(name: str, entry: MetricValues, intervals: PerMetric[MetricInterval]) -> Cell:
    ends = intervals.of(name)
    return measured(entry.value(name), why_undefined(name, entry), ends.low, ends.high)


def _delong(estimate: DelongInterval | Undefined | None) -> Cell:
    if isinstance(estimate, Undefined):
        return undefined(estimate.reason)
    return plain("") if estimate is None else Cell(span(estimate.low, estimate.high))


def thin_intervals(assessment: Assessment, unit: Unit) -> list[str]:
    """Name the metrics that some resamples do not define, with the number of resamples that do."""
    resamples = assessment.bootstrap.resamples
    texts = []
    for row, intervals in _of_unit(assessment, unit).intervals.items():
        for name in METRICS:
            ends = intervals.of(name)
            if ends.estimate is not None and ends.undefined_resamples:
                defined = resamples - ends.undefined_resamples
                texts.append(f"{NAMES[name]} of {row} ({defined:,} of {resamples:,})")
    return texts


def isic_scores_table(assessments: Mapping[str, Assessment]) -> Table | None:
    """Return the challenges' scores of assessments by name; None if no score is defined for the labels."""
    rows = []
    for where, assessment in assessments.items():
        for score, value in assessment.by_image.isic_scores.items():
            ends = assessment.by_image.isic_score_intervals[score]
            name = plain(f"{_ISIC.get(score, score)}, {where}")
            rows.append([name, measured(value, NOT_BY_DATA, ends.low, ends.high)])
    return Table("Official scores of the challenges, per image", ["", "score"], rows) if rows else None


def folds_table(folds: Mapping[int, Metrics], label: str, threshold: str, caption: str, whole: Metrics) -> Table:
    """Return metrics of the headline label and the macro AUC, a row per fold and one for ``whole``."""
    rows = []
    for name, metrics in [*((f"fold {fold}", metrics) for fold, metrics in folds.items()), ("together", whole)]:
        entry = metrics.labels.get(label)
        if entry is None:
            cells = [undefined(_NO_LABEL)] * (len(_FOLD) + 2)
        else:
            cells = [measured(entry.value(key), why_undefined(key, entry)) for key in _FOLD]
            cells += [measured(metrics.macro.auc, why_undefined("auc", metrics.macro)), plain(entry.positives)]
        rows.append([plain(name), *cells, plain(metrics.images)])
    header = [label, *(NAMES[key] for key in _FOLD), "macro AUC", "positives", "images"]
    return Table(f"{caption} (threshold: {threshold})", header, rows)


def over_folds_table(over_folds: Mapping[str, PerMetric[FoldSpread]]) -> Table:
    """Return mean, standard deviation and corrected interval of the AUC over the folds, a row per label."""
    rows = []
    for label, spreads in over_folds.items():
        auc = spreads.auc
        if auc.mean is None:
            rows.append([plain(label), *[undefined(_NO_FOLD)] * 3, plain("")])
            continue
        ends = undefined(auc.no_interval) if auc.low is None else Cell(span(auc.low, auc.high))
        rows.append([plain(label), Cell(number(auc.mean)), measured(auc.sd, _FEW_FOLDS), ends, plain(auc.folds)])
    header = ["", "mean", "standard deviation", "95 % interval, corrected", "folds"]
    return Table("AUC over the folds", header, rows)


def variance_table(components: Mapping[str, VarianceComponents | Undefined], metric: str = "AUC") -> Table:
    """Return the standard deviations of a metric due to folds and to seeds, a row per label."""
    rows = []
    for label, parts in components.items():
        if isinstance(parts, Undefined):
            rows.append([plain(label), *[undefined(parts.reason)] * 5])
        else:
            deviations = [part**0.5 for part in (parts.folds, parts.seeds, parts.remainder, parts.within_fold)]
            rows.append([plain(label), Cell(number(parts.mean)), *(Cell(number(each, 4)) for each in deviations)])
    header = ["", f"mean {metric}", "between folds", "between seeds", "remainder", "one fold, another seed"]
    return Table(f"Standard deviation of the {metric} by where it comes from", header, rows)


def letters(points: Sequence[OperatingPoint]) -> list[str]:
    """Name operating points A, B, C, in their order."""
    return [chr(ord("A") + at) for at in range(len(points))]


def points_tables(
    points: Sequence[OperatingPoint], evaluations: Sequence[Evaluation], label: str, stated: Collection[float]
) -> tuple[Table, Table]:
    """Return the operating points of a label where they were chosen and in each evaluation, then predictive values.

    The predictive values are at ``PREVALENCES`` and at those that evaluations ``stated``, each above 0 and below 1.
    """
    at = sorted({*PREVALENCES, *stated})
    rows = []
    for index, (letter, point) in enumerate(zip(letters(points), points, strict=True)):
        name = f"{letter}: {point.name}"
        evaluated = [_evaluated_row(name, each, label, index, at) for each in evaluations]
        rows += [_chosen_row(name, point, at), *(row for row in evaluated if row is not None)]
    shares = ["sensitivity", "specificity", "precision"]
    header = ["operating point", "threshold", "where", *shares, "TP", "FP", "TN", "FN"]
    names = {share: f"{share * 100:g}%" + (" (stated)" if share in stated else "") for share in at}
    values = [f"{kind} at {names[share]}" for share in at for kind in ("PPV", "NPV")]
    count = len(header)
    return (
        Table(f"Operating points of {label}", header, [row[:count] for row in rows]),
        Table(
            f"Predictive values of {label} by prevalence",
            [header[0], header[2], *values],
            [[row[0], row[2], *row[count:]] for row in rows],
        ),
    )


def _chosen_row(name: str, point: OperatingPoint, at: Sequence[float]) -> list[Cell]:
    reached = [Cell(number(point.sensitivity)), Cell(number(point.specificity))]
    counts = counts_of(point)
    tp, fp = counts[:2]
    precision = measured(tp / (tp + fp) if tp + fp else None, "no image is called positive")
    values = _predictive(point.sensitivity, point.specificity, at)
    where = Cell("where it was chosen", "out of fold: optimistic", "text")
    cells = [*reached, precision, *map(plain, counts), *values]
    return [plain(name), Cell(number(point.threshold, 4)), where, *cells]


def counts_of(point: OperatingPoint) -> tuple[int, int, int, int]:
    """Return true positives, false positives, true negatives, false negatives of a point where it was chosen."""
    tp = round(point.sensitivity * point.positives)
    tn = round(point.specificity * point.negatives)
    return tp, point.negatives - tn, tn, point.positives - tp


def _evaluated_row(name: str, evaluation: Evaluation, label: str, index: int, at: Sequence[float]) -> list[Cell] | None:
    point = evaluated_point(evaluation, label, index)
    if point is None:
        return None
    counts = point.counts
    values = _predictive_of(counts.sensitivity, counts.specificity, at)
    estimates = [estimate_cell(each) for each in (counts.sensitivity, counts.specificity, counts.precision)]
    where = Cell(evaluation.title, "", "text")
    return [plain(name), Cell(number(point.threshold, 4)), where, *estimates, *map(plain, counts_in(point)), *values]


def counts_in(point: EvaluatedPoint) -> tuple[int, int, int, int]:
    """Return true positives, false positives, true negatives, false negatives of a point in an evaluation."""
    counts = point.counts
    return counts.true_positives, counts.false_positives, counts.true_negatives, counts.false_negatives


def evaluated_point(evaluation: Evaluation, label: str, index: int) -> EvaluatedPoint | None:
    """Return an operating point of a label with its metrics in an evaluation; None if it was not evaluated."""
    points = evaluation.results.operating_points.get(label)
    return points[index] if isinstance(points, tuple) and index < len(points) else None


def _predictive_of(
    sensitivity: Interval | Undefined, specificity: Interval | Undefined, prevalences: Sequence[float]
) -> list[Cell]:
    if isinstance(sensitivity, Undefined):
        return [undefined(sensitivity.reason)] * (2 * len(prevalences))
    if isinstance(specificity, Undefined):
        return [undefined(specificity.reason)] * (2 * len(prevalences))
    return _predictive(sensitivity.estimate, specificity.estimate, prevalences)


def _predictive(sensitivity: float | None, specificity: float | None, prevalences: Sequence[float]) -> list[Cell]:
    values = [value for share in prevalences for value in predictive_values(sensitivity, specificity, share)]
    return [measured(value, "no image would be called so") for value in values]


def subgroups_table(subgroups: Sequence[Subgroup], caption: str, threshold: float, groups: str) -> Table:
    """Return metrics of each subgroup at ``threshold``, and how its AUC differs from that of the rest.

    ``groups``: the word for what the subgroups count and resample.
    """
    rows = []
    for subgroup in subgroups:
        counts = (subgroup.images, subgroup.lesions, subgroup.positives, subgroup.negatives)
        estimates = [estimate_cell(each) for each in (subgroup.auc, subgroup.sensitivity, subgroup.specificity)]
        name = Cell(f"{subgroup.attribute}: {subgroup.value}")
        rows.append([name, *map(plain, counts), *estimates, *_gap(subgroup.gap)])
    names = [f"{name} at {number(threshold, 4)}" for name in ("sensitivity", "specificity")]
    header = ["", "images", groups, "positives", "negatives", "AUC", *names,
              "AUC less the rest's", "p, Holm-corrected", "flag"]  # fmt: skip
    return Table(caption, header, rows)


def _gap(gap: Gap | Undefined) -> list[Cell]:
    if isinstance(gap, Undefined):
        return [undefined(gap.reason), plain(""), plain("")]
    difference = Cell(signed(gap.difference), span(gap.low, gap.high))
    flag = Cell("differs", "", "flag") if gap.flagged else plain("")
    return [difference, Cell(number(gap.p) if gap.p >= 0.001 else "below 0.001"), flag]


def training_table(training: Mapping[int, FoldTraining]) -> Table:
    """Return epochs, time and speed of each training."""
    rows = [
        [
            plain(f"fold {fold}"),
            plain(entry.epochs),
            plain(entry.best_epoch),
            Cell(f"{entry.seconds:,.0f}"),
            Cell(f"{entry.device_seconds / 3600:.3f}"),
            Cell(f"{entry.images_per_s:,.1f}"),
            Cell(f"{entry.input_wait_share:.1%}"),
        ]
        for fold, entry in training.items()
    ]
    device = devices(training)
    header = ["", "epochs", "best epoch", "seconds", f"{device}-hours", "images/s", "input wait"]
    return Table("Training", header, rows)


def devices(training: Mapping[int, FoldTraining]) -> str:
    """Name the devices that trained the run."""
    return " or ".join(sorted({entry.device for entry in training.values()}))


def device_hours(training: Mapping[int, FoldTraining]) -> float:
    """Return the cost of all trainings in device-hours."""
    return float(sum(entry.device_seconds for entry in training.values())) / 3600

"""Compute the metrics of a run from its out-of-fold predictions, and lay them out as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from melanoma_dist.artifacts.assessment import Assessment
from melanoma_dist.artifacts.decision_rules import DecisionRules, LabelRules
from melanoma_dist.artifacts.predictions import arrays
from melanoma_dist.artifacts.summary import Calibration, RunSummary
from melanoma_dist.config.label_sets import LabelSet, label_name
from melanoma_dist.data.labels import TRUE
from melanoma_dist.errors import DataError
from melanoma_dist.evaluate.assessment import assess
from melanoma_dist.evaluate.decision_rules import calibration, cross_fitted, decision_curve
from melanoma_dist.metrics.classification import METRICS, Metrics, MetricValues, PerMetric, Settings, compute_metrics
from melanoma_dist.metrics.cross_validation import FoldSpread, fold_spread
from melanoma_dist.metrics.intervals import Interval, MetricInterval, Undefined
from melanoma_dist.metrics.operating_points import DecisionCurve, OperatingPoint
from melanoma_dist.metrics.subgroups import Subgroup, subgroups


def out_of_fold(tables: list[pd.DataFrame], folds: pd.DataFrame) -> pd.DataFrame:
    """All folds' predictions as one table, sorted by image id.

    Raises DataError unless every image of ``folds`` (``image_id, group, fold``) is predicted exactly once, by its fold.
    """
    table = pd.concat(tables, ignore_index=True).sort_values("image_id", ignore_index=True)
    keys = ["image_id", "group", "fold"]
    expected = folds[keys].sort_values("image_id", ignore_index=True)
    same = len(table) == len(expected) and all(
        (table[key].to_numpy() == expected[key].to_numpy()).all() for key in keys
    )
    if not same:
        raise DataError(
            f"The folds' predictions ({len(table)} rows) must have each of the {len(expected)} images once, from the "
            "fold that did not train on it. Delete the folders of folds whose predictions.parquet differs from "
            "folds.parquet, and run the command again."
        )
    return table


class OutOfFold(NamedTuple):
    """The part of a ``RunSummary`` that follows from its out-of-fold predictions alone; the fields are the same."""

    out_of_fold: Assessment
    folds: dict[int, Metrics]
    over_folds: dict[str, PerMetric[FoldSpread]]
    calibration: Calibration
    operating_points: dict[str, tuple[OperatingPoint, ...] | Undefined]
    decision_curve: dict[str, DecisionCurve | None]
    subgroups: tuple[Subgroup, ...]


def summarise(
    table: pd.DataFrame, about: pd.DataFrame, labels: LabelSet, threshold: float, rules: DecisionRules
) -> OutOfFold:
    """Compute everything that follows from a table of out-of-fold predictions.

    ``about`` has the manifest's row of every image, by image id; ``rules`` were fitted on this table. Raw probabilities
    are called at ``threshold``; operating points and subgroups rest on calibrated ones.
    """
    settings = Settings(thresholds=(threshold,))
    folds = {
        int(str(fold)): compute_metrics(*arrays(rows, labels), labels, settings) for fold, rows in table.groupby("fold")
    }
    by_label = {label: [metrics.labels[label] for metrics in folds.values()] for label in labels}
    points = {label: each.points if isinstance(each, LabelRules) else each for label, each in rules.labels.items()}
    calibrated = rules.calibrate(table, labels)
    return OutOfFold(
        out_of_fold=assess(table, labels, settings, about=about.reset_index()),
        folds=folds,
        over_folds={label: _over_folds(entries) for label, entries in by_label.items()}
        | {"macro": _over_folds([metrics.macro for metrics in folds.values()])},
        calibration=calibration(table, labels),
        operating_points=points,
        decision_curve={label: _decision_curve(table, label) for label in labels},
        subgroups=subgroups(calibrated, about, labels.headline, rules.thresholds((labels.headline,), threshold)[0]),
    )


def _decision_curve(table: pd.DataFrame, label: str) -> DecisionCurve | None:
    try:
        return decision_curve(table[label + TRUE].to_numpy(), cross_fitted(table, label))
    except DataError:  # too few positives or negatives to calibrate by
        return None


def _over_folds(entries: Sequence[MetricValues]) -> PerMetric[FoldSpread]:
    return PerMetric(**{metric: fold_spread([entry.value(metric) for entry in entries]) for metric in METRICS})


SHOWN = ("auc", "average_precision", "precision", "sensitivity", "specificity")
"""The metrics of the tables in the terminal."""


def rows_by_label(summary: RunSummary) -> list[list[str]]:
    """Out-of-fold metrics, a row per label and one for the macro mean."""
    pooled = summary.out_of_fold.by_image
    rows = []
    for label in summary.labels:
        entry = pooled.labels[label]
        counts = [str(entry.positives), str(entry.negatives)]
        rows.append([label, *_cells(summary, label, entry), *counts])
    if len(rows) > 1:
        rows.append(["macro", *_cells(summary, "macro", pooled.macro), "", ""])
    return rows


def _cells(summary: RunSummary, row: str, entry: MetricValues) -> list[str]:
    auc = with_interval(summary.out_of_fold.by_image.intervals[row].auc)
    spread = _plus_minus(summary.over_folds[row].auc)
    return [auc, *(number(entry.value(metric)) for metric in SHOWN[1:]), spread]


def header_by_label(summary: RunSummary) -> list[str]:
    """The header of ``rows_by_label``."""
    return [
        "out of fold",
        "AUC (95 % interval)",
        *_threshold_names(summary),
        "AUC over folds",
        "positives",
        "negatives",
    ]


def _threshold_names(summary: RunSummary) -> list[str]:
    at = summary.threshold
    return ["AP", f"precision at {at}", f"recall at {at}", f"specificity at {at}"]


def short_header() -> list[str]:
    """The header of ``short_rows``."""
    return ["", "AUC (95 % interval)", "sensitivity", "specificity", "n"]


def short_rows(summary: RunSummary) -> list[list[str]]:
    """Out-of-fold metrics, a row per label, narrow enough for a terminal; ``n``: positives of the known images."""
    pooled = summary.out_of_fold.by_image
    rows = []
    for label in summary.labels:
        entry = pooled.labels[label]
        counts = f"{entry.positives} of {entry.positives + entry.negatives}"
        auc = with_interval(pooled.intervals[label].auc, 3)
        rows.append([label, auc, number(entry.sensitivity, 3), number(entry.specificity, 3), counts])
    return rows


def conclusion(summary: RunSummary) -> str:
    """What the run found, in one sentence."""
    pooled, headline = summary.out_of_fold.by_image, summary.label_set.headline
    on = " synthetic" if summary.synthetic else ""
    name, auc = label_name(headline), with_interval(pooled.intervals[headline].auc, 3)
    return (
        f"{name[0].upper()}{name[1:]} AUC {auc} over {pooled.images}{on} images in "
        f"{len(summary.folds)} folds, each predicted by the model that did not train on it."
    )


def with_interval(interval: Interval | MetricInterval, decimals: int = 4) -> str:
    """An estimate with its interval for people: ``0.8123 (0.7801 to 0.8411)``."""
    if interval.low is None or interval.high is None:
        return number(interval.estimate, decimals)
    return f"{number(interval.estimate, decimals)} ({interval.low:.{decimals}f} to {interval.high:.{decimals}f})"


def number(value: float | None, decimals: int = 4) -> str:
    """A metric for people: a dash for None."""
    return "–" if value is None else f"{value:.{decimals}f}"


def _plus_minus(spread: FoldSpread) -> str:
    return number(spread.mean) + (f" ± {spread.sd:.4f}" if spread.sd is not None else "")


def check_truth(table: pd.DataFrame, truth: np.ndarray[Any, Any], labels: tuple[str, ...]) -> None:
    """Raise DataError unless the truth in a table is the manifest's, [n, L]."""
    stored = table[[label + TRUE for label in labels]].to_numpy(dtype=np.float32)
    if not np.array_equal(stored, truth, equal_nan=True):
        raise DataError(
            "The truth in the predictions differs from the data set's. Delete the run's folder and train again."
        )

"""From the predictions of the folds to ``summary.json``: out of fold, per fold, their spread, and the tables shown."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import pandas as pd

from melanoma_dist.artifacts.decision_rules import DecisionRules
from melanoma_dist.artifacts.predictions import arrays
from melanoma_dist.data.folds import HEADLINE
from melanoma_dist.data.labels import TRUE
from melanoma_dist.errors import DataError
from melanoma_dist.evaluate.assessment import assess
from melanoma_dist.evaluate.decision_rules import calibration, cross_fitted, decision
from melanoma_dist.metrics.classification import FIGURES, Settings, figures
from melanoma_dist.metrics.cross_validation import over_folds
from melanoma_dist.metrics.subgroups import subgroups


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
            f"The folds' predictions ({len(table)} rows) are not one of each of the {len(expected)} images by the fold "
            "that did not train on it. Delete the fold folders with foreign predictions, and run the command again."
        )
    return table


def summarise(
    table: pd.DataFrame, about: pd.DataFrame, labels: tuple[str, ...], threshold: float, frozen: DecisionRules
) -> dict[str, Any]:
    """All that the out-of-fold predictions of a run say, from them alone.

    ``about`` has the manifest's row of every image, by image id; ``frozen`` was decided on this table. Raw
    probabilities are called at ``threshold``; operating points and subgroups rest on calibrated ones.
    """
    settings = Settings(thresholds=(threshold,))
    folds = {str(fold): figures(*arrays(rows, labels), labels, settings) for fold, rows in table.groupby("fold")}
    return {
        "headline": f"AUC of {HEADLINE}",
        "threshold": threshold,
        "labels": list(labels),
        "out_of_fold": assess(table, labels, settings),
        "folds": folds,
        "over_folds": {label: _spread([fold["labels"][label] for fold in folds.values()]) for label in labels}
        | {"macro": _spread([fold["macro"] for fold in folds.values()])},
        "calibration": calibration(table, labels),
        "operating_points": frozen.told_points(),
        "decision_curve": {label: _decision(table, label) for label in labels},
        "subgroups": subgroups(
            frozen.calibrate(table, labels), about, HEADLINE, frozen.thresholds((HEADLINE,), threshold)[0]
        ),
    }


def _decision(table: pd.DataFrame, label: str) -> dict[str, Any] | None:
    try:
        return decision(table[label + TRUE].to_numpy(), cross_fitted(table, label))
    except DataError:  # too few positives or negatives to calibrate by
        return None


def _spread(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean, sample standard deviation and corrected interval of each figure over the folds that define it."""
    spread: dict[str, Any] = {}
    for figure in FIGURES:
        values = [entry[figure] for entry in entries if entry[figure] is not None]
        found = over_folds(values) if len(values) > 1 else None
        spread[figure] = {
            "mean": statistics.fmean(values) if values else None,
            "sd": found.sd if found else None,
            "low": found.low if found else None,
            "high": found.high if found else None,
            "folds": len(values),
        }
    return spread


SHOWN = ("auc", "average_precision", "precision", "sensitivity", "specificity")
"""The figures of the tables in the terminal."""


def rows_by_label(summary: dict[str, Any]) -> list[list[str]]:
    """Out-of-fold figures, a row per label and one for the macro mean."""
    pooled, intervals = summary["out_of_fold"]["by_image"], summary["out_of_fold"]["intervals"]["by_image"]
    rows = []
    for label in summary["labels"]:
        entry = pooled["labels"][label]
        rows.append(
            [
                label,
                with_interval(intervals[label]["auc"]),
                *(_number(entry[figure]) for figure in SHOWN[1:]),
                _plus_minus(summary["over_folds"][label]["auc"]),
                str(entry["positives"]),
                str(entry["negatives"]),
            ]
        )
    if len(rows) > 1:
        spread = _plus_minus(summary["over_folds"]["macro"]["auc"])
        macro = [_number(pooled["macro"][figure]) for figure in SHOWN[1:]]
        rows.append(["macro", with_interval(intervals["macro"]["auc"]), *macro, spread, "", ""])
    return rows


def rows_by_fold(summary: dict[str, Any]) -> list[list[str]]:
    """Figures of the headline label, a row per fold and one out of fold."""
    rows = []
    for fold, entry in [*summary["folds"].items(), ("out of fold", summary["out_of_fold"]["by_image"])]:
        found = entry["labels"][HEADLINE]
        name = f"fold {fold}" if fold.isdigit() else fold
        macro = [_number(entry["macro"]["auc"])] if len(summary["labels"]) > 1 else []
        rows.append(
            [
                name,
                *(_number(found[figure]) for figure in SHOWN),
                *macro,
                str(entry["images"]),
                str(found["positives"]),
            ]
        )
    return rows


def header_by_label(summary: dict[str, Any]) -> list[str]:
    """The header of ``rows_by_label``."""
    at = summary["threshold"]
    names = [
        "out of fold",
        "AUC (95 % interval)",
        "AP",
        f"precision at {at}",
        f"recall at {at}",
        f"specificity at {at}",
    ]
    return [*names, "AUC over folds", "positives", "negatives"]


def header_by_fold(summary: dict[str, Any]) -> list[str]:
    """The header of ``rows_by_fold``."""
    at = summary["threshold"]
    macro = ["macro AUC"] if len(summary["labels"]) > 1 else []
    names = [HEADLINE, "AUC", "AP", f"precision at {at}", f"recall at {at}", f"specificity at {at}"]
    return [*names, *macro, "images", "positives"]


def with_interval(found: dict[str, Any]) -> str:
    """A figure with its interval for people: ``0.8123 (0.7801 to 0.8411)``."""
    if found["estimate"] is None:
        return "–"
    return f"{found['estimate']:.4f} ({found['low']:.4f} to {found['high']:.4f})"


def check_truth(table: pd.DataFrame, truth: np.ndarray[Any, Any], labels: tuple[str, ...]) -> None:
    """Raise DataError unless the truth in a table is the manifest's, [n, L]."""
    found = table[[label + TRUE for label in labels]].to_numpy(dtype=np.float32)
    if not np.array_equal(found, truth, equal_nan=True):
        raise DataError(
            "The truth beside the predictions is not the data set's. Delete the run's folder and train anew."
        )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _plus_minus(spread: dict[str, Any]) -> str:
    if spread["mean"] is None:
        return "–"
    return f"{spread['mean']:.4f}" + (f" ± {spread['sd']:.4f}" if spread["sd"] is not None else "")

"""From the predictions of the folds to the figures of a run: out of fold, per fold, and their spread."""

from __future__ import annotations

import statistics
from typing import Any

import numpy as np
import pandas as pd

from melanoma_dist.data.folds import HEADLINE
from melanoma_dist.errors import DataError
from melanoma_dist.train.metrics import FIGURES, figures
from melanoma_dist.train.predictions import TRUE, arrays


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


def summarise(table: pd.DataFrame, labels: tuple[str, ...], threshold: float) -> dict[str, Any]:
    """Figures out of fold, per fold, and mean and standard deviation over folds, all from the predictions alone."""
    folds = {}
    for fold, rows in table.groupby("fold"):
        folds[str(fold)] = figures(*arrays(rows, labels), labels, threshold)
    pooled = figures(*arrays(table, labels), labels, threshold)
    return {
        "headline": f"AUC of {HEADLINE}",
        "threshold": threshold,
        "labels": list(labels),
        "out_of_fold": pooled,
        "folds": folds,
        "over_folds": {label: _spread([fold["labels"][label] for fold in folds.values()]) for label in labels}
        | {"macro": _spread([fold["macro"] for fold in folds.values()])},
    }


def _spread(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean and sample standard deviation of each figure over the folds that define it."""
    spread: dict[str, Any] = {}
    for figure in FIGURES:
        values = [entry[figure] for entry in entries if entry[figure] is not None]
        spread[figure] = {
            "mean": statistics.fmean(values) if values else None,
            "sd": statistics.stdev(values) if len(values) > 1 else None,
            "folds": len(values),
        }
    return spread


def rows_by_label(summary: dict[str, Any]) -> list[list[str]]:
    """Out-of-fold figures, a row per label and one for the macro mean."""
    pooled = summary["out_of_fold"]
    rows = []
    for label in summary["labels"]:
        entry = pooled["labels"][label]
        spread = summary["over_folds"][label]["auc"]
        rows.append(
            [
                label,
                *(_number(entry[figure]) for figure in FIGURES),
                _plus_minus(spread),
                str(entry["positives"]),
                str(entry["negatives"]),
            ]
        )
    if len(rows) > 1:
        spread = summary["over_folds"]["macro"]["auc"]
        rows.append(["macro", *(_number(pooled["macro"][figure]) for figure in FIGURES), _plus_minus(spread), "", ""])
    return rows


def rows_by_fold(summary: dict[str, Any]) -> list[list[str]]:
    """Figures of the headline label, a row per fold and one out of fold."""
    rows = []
    for fold, entry in [*summary["folds"].items(), ("out of fold", summary["out_of_fold"])]:
        found = entry["labels"][HEADLINE]
        name = f"fold {fold}" if fold.isdigit() else fold
        macro = [_number(entry["macro"]["auc"])] if len(summary["labels"]) > 1 else []
        rows.append(
            [
                name,
                *(_number(found[figure]) for figure in FIGURES),
                *macro,
                str(entry["images"]),
                str(found["positives"]),
            ]
        )
    return rows


def header_by_label(summary: dict[str, Any]) -> list[str]:
    """The header of ``rows_by_label``."""
    threshold = summary["threshold"]
    return [
        "out of fold",
        "AUC",
        "AP",
        f"precision at {threshold}",
        f"recall at {threshold}",
        "AUC over folds",
        "positives",
        "negatives",
    ]


def header_by_fold(summary: dict[str, Any]) -> list[str]:
    """The header of ``rows_by_fold``."""
    threshold = summary["threshold"]
    macro = ["macro AUC"] if len(summary["labels"]) > 1 else []
    return [HEADLINE, "AUC", "AP", f"precision at {threshold}", f"recall at {threshold}", *macro, "images", "positives"]


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

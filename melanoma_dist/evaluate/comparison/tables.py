"""The tables of a comparison, as text, for the terminal and the page alike: a header and rows."""

from __future__ import annotations

from typing import Any

from melanoma_dist.data.folds import HEADLINE
from melanoma_dist.evaluate.comparison.conclusions import p_value, signed

Table = tuple[list[str], list[list[str]]]
NAMES = {
    "auc": "AUC",
    "average_precision": "average precision",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "balanced_accuracy": "balanced accuracy",
    "specificity_at_90": "specificity at sensitivity 0.90",
    "brier": "Brier score",
}
NONE = "–"


def figures_table(comparison: dict[str, Any], label: str = HEADLINE) -> Table:
    """Figures of a label down, runs across, each with its 95 % interval."""
    runs = comparison["runs"]
    rows = [[name, *(interval(run["figures"][label][figure]) for run in runs)] for figure, name in NAMES.items()]
    return ["", *(run["name"] for run in runs)], rows


def pairs_table(comparison: dict[str, Any]) -> Table:
    """A row per pair: the difference of the headline AUC by every method."""
    many = len(comparison["pairs"]) > 1
    resampled = "simultaneous 95 %" if many else "95 % (bootstrap)"
    header = ["first less second", "separated", "difference", resampled, "95 % (DeLong)"]
    header += ["corrected p" if many else "p", "95 % over folds"]
    return header, [_pair_row(pair) for pair in comparison["pairs"]]


def _pair_row(pair: dict[str, Any]) -> list[str]:
    found, test, folds = pair["simultaneous"], pair["delong"][HEADLINE], pair["folds"]
    p = pair["p_corrected"]
    return [
        f"{pair['first']} less {pair['second']}",
        f"yes: {pair['better']}" if pair["separated"] else "no",
        NONE if "not_defined" in found else signed(found["estimate"]),
        ends(found),
        ends(test),
        NONE if p is None else p_value(p),
        ends(folds),
    ]


def labels_table(comparison: dict[str, Any]) -> Table:
    """A row per label and one for the macro mean: positives, each run's AUC."""
    header = ["AUC", "positives", *(run["name"] for run in comparison["runs"])]
    rows = []
    for label in _labels(comparison):
        aucs = [interval(run["figures"][label]["auc"]) for run in comparison["runs"]]
        rows.append([label, str(comparison["positives"].get(label, "")), *aucs])
    return header, rows


def label_differences_table(comparison: dict[str, Any]) -> Table:
    """A row per label and one for the macro mean: each pair's difference in AUC."""
    pairs = comparison["pairs"]
    header = ["AUC", *(f"{pair['first']} less {pair['second']}" for pair in pairs)]
    return header, [
        [label, *(interval(pair["figures"][label]["auc"], difference=True) for pair in pairs)]
        for label in _labels(comparison)
    ]


def _labels(comparison: dict[str, Any]) -> list[str]:
    return [*comparison["labels"], *(["macro"] if len(comparison["labels"]) > 1 else [])]


def differences_table(comparison: dict[str, Any]) -> Table:
    """A row per figure of the headline label: each pair's difference with its own 95 % interval."""
    pairs = comparison["pairs"]
    header = ["", *(f"{pair['first']} less {pair['second']}" for pair in pairs)]
    return header, [
        [name, *(interval(pair["figures"][HEADLINE][figure], difference=True) for pair in pairs)]
        for figure, name in NAMES.items()
    ]


def folds_table(comparison: dict[str, Any]) -> Table:
    """A row per fold: each run's headline AUC there. Without rows where an ensemble predicts."""
    runs = comparison["runs"]
    header = [comparison["headline"], *(run["name"] for run in runs)]
    return header, [
        [f"fold {fold}", *(_number(run["folds"][fold], ".3f") for run in runs)] for fold in runs[0]["folds"] or ()
    ]


def cost_table(comparison: dict[str, Any]) -> Table:
    """A row per run: headline AUC, hours, speed, size."""
    header = ["", comparison["headline"], "device", "device-hours", "epochs (all folds)", "images/s", "input wait",
              "million parameters"]  # fmt: skip
    return header, [_cost_row(run) for run in comparison["runs"]]


def _cost_row(run: dict[str, Any]) -> list[str]:
    cost, auc = run["cost"], run["figures"][HEADLINE]["auc"]
    size = cost["parameters"]
    return [
        run["name"],
        NONE if "not_defined" in auc else f"{auc['estimate']:.3f}",
        cost["device"] or NONE,
        _number(cost["device_hours"], ".3g"),
        NONE if cost["epochs"] is None else str(cost["epochs"]),
        _number(cost["images_per_s"], ".0f"),
        _number(cost["input_wait_share"], ".0%"),
        NONE if size is None else f"{size / 1e6:.1f}",
    ]


def undefined(comparison: dict[str, Any]) -> list[str]:
    """Why a dash stands where a figure should: each label and reason once."""
    reasons: dict[str, list[str]] = {}
    for row in (*comparison["labels"], "macro"):
        for figure, name in NAMES.items():
            found = comparison["runs"][0]["figures"][row][figure]
            if "not_defined" in found:
                reasons.setdefault(f"{row}: {found['not_defined']}", []).append(name)
    for label in comparison["labels"]:
        test = comparison["pairs"][0]["delong"][label]
        if "not_defined" in test:
            reasons.setdefault(f"{label}: {test['not_defined']}", []).append("DeLong's test")
    folds = comparison["pairs"][0]["folds"]
    if "not_defined" in folds:
        reasons.setdefault(folds["not_defined"], []).append("interval over folds")
    return [f"{reason} Not defined, therefore: {', '.join(names)}." for reason, names in reasons.items()]


def interval(found: dict[str, Any], difference: bool = False) -> str:
    """``0.853 (0.831 to 0.874)``; a dash where not defined."""
    if "not_defined" in found:
        return NONE
    if difference:
        return f"{signed(found['estimate'])} ({ends(found)})"
    return f"{found['estimate']:.3f} ({found['low']:.3f} to {found['high']:.3f})"


def ends(found: dict[str, Any]) -> str:
    """The interval of a difference."""
    return NONE if "not_defined" in found else f"{signed(found['low'])} to {signed(found['high'])}"


def _number(value: float | None, form: str) -> str:
    return NONE if value is None else format(value, form)

"""The tables of a report, from a run's summary and its evaluations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from melanoma_dist.data.folds import HEADLINE
from melanoma_dist.evaluate.report.cells import EARLIER, NAMES, estimate_cell, is_certain, why_undefined
from melanoma_dist.evaluate.report.run_results import Evaluation
from melanoma_dist.metrics.bootstrap import PROPORTIONS
from melanoma_dist.metrics.classification import predictive_values
from melanoma_dist.pages.numbers import number, signed, span
from melanoma_dist.pages.tables import Cell, Table, measured, plain, undefined

MAIN = ("auc", "average_precision", "sensitivity", "specificity", "precision", "f1", "balanced_accuracy")
MORE = ("partial_auc_80", "specificity_at_80", "specificity_at_82", "specificity_at_89", "specificity_at_90",
        "specificity_at_95", "brier", "calibration_error")  # fmt: skip
PREVALENCES = (0.01, 0.05, 0.20)
"""Of melanoma, in round numbers: a screened population, a referred one, and a clinic for pigmented lesions."""
UNITS = {"by_image": "image", "by_lesion": "lesion"}
OFFICIAL = {"isic2017": "ISIC 2017: mean AUC", "isic2018": "ISIC 2018: balanced accuracy",
            "isic2019": "ISIC 2019: balanced accuracy"}  # fmt: skip
ENDS = ("low", "high")
_FOLD = ("auc", "average_precision", "sensitivity", "specificity", "precision")


def metrics_table(
    assessment: Mapping[str, Any], unit: str, shown: Sequence[str], absent: Mapping[str, str], where: str
) -> Table:
    """Return metrics with bootstrap intervals, a row per label, macro and micro; ``unit`` is by_image or by_lesion.

    ``absent`` has the labels without known truth and the reasons.
    """
    entries, intervals = assessment[unit], assessment["intervals"][unit]
    delong = assessment["delong"][unit] if "auc" in shown else None
    rows = [
        _label_row(label, entries["labels"].get(label), intervals.get(label), shown, absent.get(label), delong)
        for label in {**entries["labels"], **absent}
    ]
    if len(entries["labels"]) > 1:
        none: dict[str, Any] | None = {} if delong is not None else None
        rows += [_label_row(name, entries[name], intervals[name], shown, None, none) for name in ("macro", "micro")]
    counts = ["positives of known", "unknown"] if delong is not None else []
    header = ["", *(NAMES[name] for name in shown)]
    if delong is not None:
        header.insert(2, "AUC, DeLong interval")
    further = "" if delong is not None else ", further metrics"
    return Table(f"{where}, per {UNITS[unit]}{further}", [*header, *counts], rows)


def _label_row(
    name: str,
    entry: Mapping[str, Any] | None,
    intervals: Mapping[str, Any] | None,
    shown: Sequence[str],
    absent: str | None,
    delong: Mapping[str, Any] | None,
) -> list[Cell]:
    counted = delong is not None
    if entry is None or absent is not None:
        why = absent or "the data does not have this label"
        return [plain(name), *[undefined(why)] * (len(shown) + (3 if counted else 0))]
    cells = [_metric(metric, entry, intervals) for metric in shown]
    if counted:
        cells.insert(1, _delong((delong or {}).get(name)))
        cells += _counts(entry)
    return [plain(name), *cells]


def _counts(entry: Mapping[str, Any]) -> list[Cell]:
    if "positives" not in entry:  # a mean over labels
        return [plain(""), plain("")]
    known = entry["positives"] + entry["negatives"]
    return [plain(f"{entry['positives']:,} of {known:,}"), plain(entry["unknown"])]


def _metric(name: str, entry: Mapping[str, Any], intervals: Mapping[str, Any] | None) -> Cell:
    ends = (intervals or {}).get(name) or {"low": None, "high": None}
    if name in PROPORTIONS and is_certain(entry[name], ends["low"], ends["high"]):
        return undefined(f"{EARLIER}; compute it again")
    return measured(entry[name], why_undefined(name, entry), ends["low"], ends["high"])


def _delong(estimate: Mapping[str, Any] | None) -> Cell:
    if estimate is None:
        return plain("")
    if "not_defined" in estimate:
        return undefined(str(estimate["not_defined"]))
    return Cell(span(estimate["low"], estimate["high"]))


def thin_intervals(assessment: Mapping[str, Any], unit: str) -> list[str]:
    """Name the metrics that some resamples do not define, with the number of resamples that do not."""
    resamples = assessment["bootstrap"]["resamples"]
    return [
        f"{NAMES[name]} of {row} ({resamples - ends['undefined']:,} of {resamples:,})"
        for row, intervals in assessment["intervals"][unit].items()
        for name, ends in intervals.items()
        if name in NAMES and ends["estimate"] is not None and ends["undefined"]
    ]


def official_table(parts: Mapping[str, Mapping[str, Any]]) -> Table | None:
    """Return the challenges' scores of assessments by name; None if no score is defined for the labels."""
    rows = [
        [
            plain(f"{OFFICIAL.get(score, score)}, {where}"),
            measured(
                value,
                "these images do not define it",
                *(assessment["intervals"]["by_image"].get("official", {}).get(score, {}).get(end) for end in ENDS),
            ),
        ]
        for where, assessment in parts.items()
        for score, value in assessment["by_image"]["official"].items()
    ]
    return Table("Official scores of the challenges, per image", ["", "score"], rows) if rows else None


def folds_table(folds: Mapping[str, Any], threshold: str, caption: str, whole: Mapping[str, Any] | None) -> Table:
    """Return metrics of the headline label and the macro AUC, a row per fold and one for ``whole``."""
    parts = {f"fold {fold}": metrics for fold, metrics in folds.items()} | ({"together": whole} if whole else {})
    rows = []
    for name, metrics in parts.items():
        entry = metrics["labels"].get(HEADLINE)
        if entry is None:
            cells = [undefined("the data does not have this label")] * (len(_FOLD) + 2)
        else:
            cells = [measured(entry[key], why_undefined(key, entry)) for key in _FOLD]
            macro = measured(metrics["macro"]["auc"], why_undefined("auc", metrics["macro"]))
            cells += [macro, plain(entry["positives"])]
        rows.append([plain(name), *cells, plain(metrics["images"])])
    header = [HEADLINE, *(NAMES[key] for key in _FOLD), "macro AUC", "positives", "images"]
    return Table(f"{caption} (threshold: {threshold})", header, rows)


def over_folds_table(over_folds: Mapping[str, Any]) -> Table:
    """Return mean, standard deviation and corrected interval of the AUC over the folds, a row per label."""
    rows = []
    for label, spreads in over_folds.items():
        entry = spreads.get("auc")
        if entry is None or entry.get("mean") is None:
            rows.append([plain(label), *[undefined("fewer than two folds define it")] * 3, plain("")])
            continue
        ends = undefined("fewer than two folds define it")
        if entry.get("low") is not None:
            ends = Cell(span(entry["low"], entry["high"]))
        spread = measured(entry["sd"], "fewer than two folds define it")
        rows.append([plain(label), Cell(number(entry["mean"])), spread, ends, plain(entry.get("folds", ""))])
    header = ["", "mean", "standard deviation", "95 % interval, corrected", "folds"]
    return Table("AUC over the folds", header, rows)


def variance_table(repeats: Mapping[str, Any]) -> Table:
    """Return the standard deviations of the AUC due to folds and to seeds, a row per label."""
    rows = []
    for label, parts in repeats["components"].items():
        if "not_defined" in parts:
            rows.append([plain(label), *[undefined(parts["not_defined"])] * 5])
        else:
            deviations = [parts[key] ** 0.5 for key in ("folds", "seeds", "remainder", "within_fold")]
            rows.append([plain(label), Cell(number(parts["mean"])), *(Cell(number(each, 4)) for each in deviations)])
    header = ["", "mean AUC", "between folds", "between seeds", "remainder", "one fold, another seed"]
    return Table("Standard deviation of the AUC by where it comes from", header, rows)


def letters(points: Sequence[Mapping[str, Any]]) -> list[str]:
    """Name operating points A, B, C, in their order."""
    return [chr(ord("A") + at) for at in range(len(points))]


def points_table(points: Sequence[Mapping[str, Any]], evaluations: Sequence[Evaluation], label: str) -> Table:
    """Return the operating points of a label where they were chosen and in each evaluation, with predictive values."""
    rows = []
    for index, (letter, point) in enumerate(zip(letters(points), points, strict=True)):
        name = f"{letter}: {point['name']}"
        evaluated = [_evaluated_row(name, each, label, index) for each in evaluations]
        rows += [_chosen_row(name, point), *(row for row in evaluated if row is not None)]
    values = [f"{kind} at {share:.0%}" for share in PREVALENCES for kind in ("PPV", "NPV")]
    header = [
        "operating point",
        "threshold",
        "where",
        "sensitivity",
        "specificity",
        "precision",
        "TP",
        "FP",
        "TN",
        "FN",
    ]
    return Table(f"Operating points of {label}", [*header, *values], rows)


def _chosen_row(name: str, point: Mapping[str, Any]) -> list[Cell]:
    reached = [Cell(number(point["sensitivity"])), Cell(number(point["specificity"]))]
    counts = counts_of(point)
    tp, fp = counts[:2]
    precision = measured(tp / (tp + fp) if tp + fp else None, "no image is called positive")
    values = _predictive(point["sensitivity"], point["specificity"])
    where = Cell("where it was chosen", "out of fold: optimistic", "text")
    cells = [*reached, precision, *map(plain, counts), *values]
    return [plain(name), Cell(number(point["threshold"], 4)), where, *cells]


def counts_of(point: Mapping[str, Any]) -> tuple[int, int, int, int]:
    """Return true positives, false positives, true negatives, false negatives of a point where it was chosen."""
    tp = round(point["sensitivity"] * point["positives"])
    tn = round(point["specificity"] * point["negatives"])
    return tp, point["negatives"] - tn, tn, point["positives"] - tp


def _evaluated_row(name: str, evaluation: Evaluation, label: str, index: int) -> list[Cell] | None:
    point = evaluated_point(evaluation, label, index)
    if point is None:
        return None
    metrics = point["judged"]
    values = _predictive_of(metrics["sensitivity"], metrics["specificity"])
    counts = [plain(metrics[key]) for key in ("true_positives", "false_positives", "true_negatives", "false_negatives")]
    estimates = [estimate_cell(metrics[key]) for key in ("sensitivity", "specificity", "precision")]
    where = Cell(evaluation.title, "", "text")
    return [plain(name), Cell(number(point["threshold"], 4)), where, *estimates, *counts, *values]


def evaluated_point(evaluation: Evaluation, label: str, index: int) -> Mapping[str, Any] | None:
    """Return an operating point of a label with its metrics in an evaluation; None if it was not evaluated."""
    points = evaluation.record["operating_points"].get(label)
    return points[index] if isinstance(points, list) and index < len(points) and "judged" in points[index] else None


def _predictive_of(*shares: Mapping[str, Any]) -> list[Cell]:
    reasons = [str(share["not_defined"]) for share in shares if "not_defined" in share]
    if reasons:
        return [undefined(reasons[0])] * (2 * len(PREVALENCES))
    return _predictive(*(share["estimate"] for share in shares))


def _predictive(sensitivity: float | None, specificity: float | None) -> list[Cell]:
    values = [value for share in PREVALENCES for value in predictive_values(sensitivity, specificity, share)]
    return [measured(value, "no image would be called so") for value in values]


def subgroups_table(subgroups: Sequence[Mapping[str, Any]], caption: str, threshold: float) -> Table:
    """Return metrics of each subgroup at ``threshold``, and how its AUC differs from that of the rest."""
    rows = []
    for subgroup in subgroups:
        counts = [plain(subgroup[key]) for key in ("images", "lesions", "positives", "negatives")]
        estimates = [estimate_cell(subgroup[key]) for key in ("auc", "sensitivity", "specificity")]
        name = Cell(f"{subgroup['attribute']}: {subgroup['value']}")
        rows.append([name, *counts, *estimates, *_gap(subgroup["gap"])])
    names = [f"{name} at {number(threshold, 4)}" for name in ("sensitivity", "specificity")]
    header = ["", "images", "lesions", "positives", "negatives", "AUC", *names,
              "AUC less the rest's", "p, Holm-corrected", "flag"]  # fmt: skip
    return Table(caption, header, rows)


def _gap(gap: Mapping[str, Any]) -> list[Cell]:
    if "not_defined" in gap:
        return [undefined(str(gap["not_defined"])), plain(""), plain("")]
    difference = Cell(signed(gap["difference"]), span(gap["low"], gap["high"]))
    flag = Cell("differs", "", "flag") if gap["flagged"] else plain("")
    return [difference, Cell(f"{gap['p']:.3f}" if gap["p"] >= 0.001 else "below 0.001"), flag]


def training_table(training: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return epochs, time and speed of each training."""
    rows = [
        [
            plain(f"fold {fold}" if fold.isdigit() else fold),
            plain(entry["epochs"]),
            plain(entry["best_epoch"]),
            Cell(f"{entry['seconds']:,.0f}"),
            Cell(f"{entry['device_seconds'] / 3600:.3f}"),
            Cell(f"{entry['images_per_s']:,.1f}"),
            Cell(f"{entry['input_wait_share']:.1%}"),
        ]
        for fold, entry in training.items()
    ]
    device = devices(training)
    header = ["", "epochs", "best epoch", "seconds", f"{device}-hours", "images/s", "input wait"]
    return Table("Training", header, rows)


def devices(training: Mapping[str, Mapping[str, Any]]) -> str:
    """Name the devices that trained the run."""
    return " or ".join(sorted({str(entry["device"]) for entry in training.values()}))


def device_hours(training: Mapping[str, Mapping[str, Any]]) -> float:
    """Return the cost of all trainings in device-hours."""
    return float(sum(entry["device_seconds"] for entry in training.values())) / 3600

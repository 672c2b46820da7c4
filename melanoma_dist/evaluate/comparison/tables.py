"""The tables of a comparison, for the terminal and the page."""

from __future__ import annotations

from melanoma_dist.evaluate.comparison.conclusions import p_value
from melanoma_dist.evaluate.comparison.records import (
    Comparison,
    DelongTest,
    Estimate,
    FoldInterval,
    NotDefined,
    Pair,
    RunRecord,
)
from melanoma_dist.pages.numbers import UNDEFINED, signed
from melanoma_dist.pages.tables import Cell, Table, measured, plain, undefined

NAMES = {
    "auc": "AUC",
    "average_precision": "average precision",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "balanced_accuracy": "balanced accuracy",
    "specificity_at_90": "specificity at sensitivity 0.90",
    "brier": "Brier score",
}
_SHORT = 16  # characters of a fingerprint that are shown


def metrics_table(comparison: Comparison, caption: str) -> Table:
    """Return a row per metric of the headline label and a column per run, each cell with its 95 % interval."""
    runs = comparison.runs
    rows = [
        [plain(name), *(_estimate(run.metrics[comparison.label][key]) for run in runs)] for key, name in NAMES.items()
    ]
    return Table(caption, ["", *(run.name for run in runs)], rows)


def pairs_table(comparison: Comparison) -> Table:
    """Return a row per pair: the difference of the headline AUC by every method."""
    many = len(comparison.pairs) > 1
    resampled = "simultaneous 95 %" if many else "95 % (bootstrap)"
    header = ["first less second", "separated", "difference", resampled, "95 % (DeLong)"]
    header += ["corrected p" if many else "p", "95 % over folds"]
    rows = [_pair_row(pair, comparison.label) for pair in comparison.pairs]
    return Table(f"Differences of {comparison.headline}", header, rows)


def _pair_row(pair: Pair, headline: str) -> list[Cell]:
    bootstrap, p = pair.simultaneous, pair.p_corrected
    return [
        plain(pair.name),
        plain(f"yes: {pair.better}" if pair.separated else "no"),
        plain(UNDEFINED if isinstance(bootstrap, NotDefined) else signed(bootstrap.estimate)),
        *(plain(_ends(each) or UNDEFINED) for each in (bootstrap, pair.delong[headline])),
        plain(UNDEFINED if p is None else p_value(p)),
        plain(_ends(pair.folds) or UNDEFINED),
    ]


def labels_table(comparison: Comparison) -> Table:
    """Return a row per label and one for the macro mean: positives, each run's AUC."""
    header = ["AUC", "positives", *(run.name for run in comparison.runs)]
    rows = [
        [
            plain(label),
            plain(comparison.positives.get(label, "")),
            *(_estimate(run.metrics[label]["auc"]) for run in comparison.runs),
        ]
        for label in _labels(comparison)
    ]
    return Table("AUC by label, with 95 % intervals", header, rows)


def label_differences_table(comparison: Comparison) -> Table:
    """Return a row per label and one for the macro mean: each pair's difference in AUC."""
    pairs = comparison.pairs
    rows = [
        [plain(label), *(_difference(pair.metrics[label]["auc"]) for pair in pairs)] for label in _labels(comparison)
    ]
    caption = "Differences in AUC by label, with 95 % intervals that are not corrected"
    return Table(caption, ["AUC", *(pair.name for pair in pairs)], rows)


def _labels(comparison: Comparison) -> list[str]:
    return [*comparison.labels, *(["macro"] if len(comparison.labels) > 1 else [])]


def differences_table(comparison: Comparison) -> Table:
    """Return a row per metric of the headline label: each pair's difference with its own 95 % interval."""
    pairs, label = comparison.pairs, comparison.label
    rows = [[plain(name), *(_difference(pair.metrics[label][key]) for pair in pairs)] for key, name in NAMES.items()]
    caption = f"Differences of every metric of {label}, each with a 95 % interval of its own, not corrected"
    return Table(caption, ["", *(pair.name for pair in pairs)], rows)


def folds_table(comparison: Comparison) -> Table:
    """Return a row per fold: each run's headline AUC there. Without rows where an ensemble predicts."""
    runs = comparison.runs
    aucs = [run.folds for run in runs if run.folds is not None]
    rows = [[plain(f"fold {fold}"), *(measured(each[fold]) for each in aucs)] for fold in (aucs[0] if aucs else ())]
    return Table("Fold by fold", [comparison.headline, *(run.name for run in runs)], rows)


def cost_table(comparison: Comparison) -> Table:
    """Return a row per run: headline AUC, hours, speed, size."""
    header = ["", comparison.headline, "device", "device-hours", "epochs (all folds)", "images/s", "input wait",
              "million parameters"]  # fmt: skip
    rows = [_cost_row(run, comparison.label) for run in comparison.runs]
    return Table("Cost of all folds; speed and wait are means over folds", header, rows)


def _cost_row(run: RunRecord, headline: str) -> list[Cell]:
    cost, auc = run.cost, run.metrics[headline]["auc"]
    size = cost.parameters
    return [
        plain(run.name),
        measured(None if isinstance(auc, NotDefined) else auc.estimate),
        plain(cost.device or UNDEFINED),
        _formatted(cost.device_hours, ".3g"),
        plain(UNDEFINED if cost.epochs is None else str(cost.epochs)),
        _formatted(cost.images_per_s, ".0f"),
        _formatted(cost.input_wait_share, ".0%"),
        _formatted(None if size is None else size / 1e6, ".1f"),
    ]


def runs_table(comparison: Comparison) -> Table:
    """Return a row per run: where it is, what it trained, which evaluation is compared."""
    header = ["", "folder", "backbone", "seed", "data", "trained"]
    header += ["evaluation", "earlier evaluations"] if comparison.holdout else []
    rows = []
    for run in comparison.runs:
        values = [run.folder, run.backbone, run.seed, str(run.data)[:_SHORT], run.trained or UNDEFINED]
        if run.evaluation:
            values += [f"{run.evaluation.number}, {run.evaluation.finished}", len(run.earlier)]
        rows.append([plain(run.name), *(Cell(str(value), "", "text") for value in values)])
    return Table("The runs", header, rows)


def fields_table(comparison: Comparison) -> Table:
    """Return a row per field in which the runs differ. Without rows where they do not."""
    header = ["field", *(run.name for run in comparison.runs)]
    rows = [
        [plain(key), *(Cell(UNDEFINED if value is None else _shortened(value), "", "text") for value in values)]
        for key, values in comparison.differences.items()
    ]
    return Table("Fields that differ", header, rows)


def _shortened(value: object) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:_SHORT]}…"


def undefined_metrics(comparison: Comparison) -> list[str]:
    """Return why cells have a dash instead of a number: each label and reason once."""
    reasons: dict[str, list[str]] = {}
    for row in (*comparison.labels, "macro"):
        for metric, name in NAMES.items():
            estimate = comparison.runs[0].metrics[row][metric]
            if isinstance(estimate, NotDefined):
                reasons.setdefault(f"{row}: {estimate.not_defined}", []).append(name)
    for label in comparison.labels:
        test = comparison.pairs[0].delong[label]
        if isinstance(test, NotDefined):
            reasons.setdefault(f"{label}: {test.not_defined}", []).append("DeLong's test")
    folds = comparison.pairs[0].folds
    if isinstance(folds, NotDefined):
        reasons.setdefault(folds.not_defined, []).append("interval over folds")
    return [f"{reason} Not defined, therefore: {', '.join(names)}." for reason, names in reasons.items()]


def _estimate(estimate: Estimate | NotDefined) -> Cell:
    if isinstance(estimate, NotDefined):
        return undefined()
    return measured(estimate.estimate, "", estimate.low, estimate.high)


def _difference(estimate: Estimate | NotDefined) -> Cell:
    return undefined() if isinstance(estimate, NotDefined) else Cell(signed(estimate.estimate), _ends(estimate))


def _ends(interval: Estimate | DelongTest | FoldInterval | NotDefined) -> str:
    return "" if isinstance(interval, NotDefined) else f"{signed(interval.low)} to {signed(interval.high)}"


def _formatted(value: float | None, form: str) -> Cell:
    return plain(UNDEFINED if value is None else format(value, form))

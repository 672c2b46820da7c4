"""The curves of a report with what belongs to them: a caption, a text for those who do not see it, the numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from melanoma_dist.data.folds import HEADLINE
from melanoma_dist.evaluate.report import curves, plots
from melanoma_dist.evaluate.report.cells import Cell, Table, number, plain, span
from melanoma_dist.evaluate.report.curves import Mark, Scored, precision_at, scored, specificity_at
from melanoma_dist.evaluate.report.plots import Confusion
from melanoma_dist.evaluate.report.run_results import RunResults
from melanoma_dist.evaluate.report.tables import counts_of, judged_point, letters

OUT_OF_FOLD = "out of fold"
_LEVELS = (0.50, 0.60, 0.70, 0.80, 0.82, 0.89, 0.90, 0.95)
_DECISIONS = 12  # thresholds of a decision curve that its table tells


class ReportFigure(NamedTuple):
    """A plot and its words."""

    name: str
    """For TensorBoard and anchors: letters and underscores."""
    title: str
    figure: Figure
    alt: str
    """Its key numbers in a sentence."""
    caption: str
    table: Table


class Missing(NamedTuple):
    """A plot that the data does not allow, and why."""

    title: str
    why: str


def exhibits(evidence: RunResults) -> list[ReportFigure | Missing]:
    """The curves of the headline label, out of fold and of each evaluation."""
    sets, missing = _sets(evidence)
    made: list[ReportFigure | Missing] = list(missing)
    if sets:
        made += [_roc(evidence, sets), _precision_recall(sets)]
    if len(evidence.labels) > 1:
        made.append(_all_labels(evidence))
    made += [*_reliability(evidence), *_decision(evidence), *_confusion(evidence)]
    return made


def _sets(evidence: RunResults) -> tuple[list[Scored], list[Missing]]:
    """The answers to the headline label, by where they come from; the out-of-fold ones first."""
    tables = {OUT_OF_FOLD: evidence.table} | {each.title: each.table for each in evidence.evaluations}
    found = {name: scored(name, table, HEADLINE) for name, table in tables.items() if HEADLINE in table}
    missing = [
        Missing(f"Curves of {HEADLINE}, {name}", "needs images known to have it and images known not to")
        for name in tables
        if found.get(name) is None
    ]
    return [answers for answers in found.values() if answers is not None], missing


def _auc(evidence: RunResults, name: str) -> dict[str, Any] | None:
    assessments = {OUT_OF_FOLD: evidence.summary["out_of_fold"]}
    assessments |= {each.title: each.record["ensemble"] for each in evidence.evaluations}
    row = assessments[name]["intervals"]["by_image"].get(HEADLINE)
    return None if row is None else dict(row["auc"])


def _roc(evidence: RunResults, sets: list[Scored]) -> ReportFigure:
    folds = [
        answers
        for fold, rows in evidence.table.groupby("fold")
        if (answers := scored(f"fold {fold}", rows, HEADLINE)) is not None
    ]
    key = "; ".join(f"{each.name} AUC {_said(_auc(evidence, each.name))}" for each in sets)
    marks, names = _marks(evidence, sets)
    caption = (
        f"{key}. Letters are operating points, on the curve they were chosen or judged on: {names}." if names else key
    )
    table = _levels(f"Specificity of {HEADLINE} at given sensitivities", "sensitivity", sets, specificity_at)
    return ReportFigure("roc", f"ROC of {HEADLINE}", curves.roc_plot(sets, folds, marks), key, caption, table)


def _said(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return number(None)
    interval = span(found["low"], found["high"])
    return number(found["estimate"]) + (f", 95 % interval {interval}" if interval else "")


def _marks(evidence: RunResults, sets: list[Scored]) -> tuple[list[Mark], str]:
    points = evidence.summary["operating_points"].get(HEADLINE)
    if not isinstance(points, list):
        return [], ""
    at = {answers.name: series for series, answers in enumerate(sets)}
    marks = []
    for index, (letter, point) in enumerate(zip(letters(points), points, strict=True)):
        if OUT_OF_FOLD in at and not evidence.evaluations:
            marks.append(Mark(letter, point["sensitivity"], point["specificity"], at[OUT_OF_FOLD]))
        for each in evidence.evaluations:
            judged = judged_point(each, HEADLINE, index)
            if judged is None or each.title not in at:
                continue
            reached = [judged["judged"][key].get("estimate") for key in ("sensitivity", "specificity")]
            if None not in reached:
                marks.append(Mark(letter, reached[0], reached[1], at[each.title]))
    return marks, ", ".join(f"{letter} {point['name']}" for letter, point in zip(letters(points), points, strict=True))


def _levels(caption: str, name: str, sets: list[Scored], value: Callable[[Scored, float], float]) -> Table:
    rows = [[Cell(f"{level:.2f}"), *(Cell(number(value(each, level))) for each in sets)] for level in _LEVELS]
    return Table(caption, [name, *(each.name for each in sets)], rows)


def _precision_recall(sets: list[Scored]) -> ReportFigure:
    key = "; ".join(
        f"{each.name}: precision {precision_at(each, 0.9):.3f} at recall 0.90, {each.truth.mean():.1%} positive"
        for each in sets
    )
    table = _levels("Precision at given recalls", "recall", sets, precision_at)
    caption = f"{key}. Dotted: the share of positives, which chance reaches."
    figure = curves.precision_recall_plot(sets)
    return ReportFigure("precision_recall", f"Precision and recall of {HEADLINE}", figure, key, caption, table)


def _all_labels(evidence: RunResults) -> ReportFigure:
    lead = evidence.leading()
    table, where = (evidence.table, OUT_OF_FOLD) if lead is None else (lead.table, lead.title)
    sets = [
        answers for label in evidence.labels if label in table and (answers := scored(label, table, label)) is not None
    ]
    title = f"ROC of every label, {where}"
    missing = [label for label in evidence.labels if label not in {each.name for each in sets}]
    caption = f"{len(sets)} labels" + (f"; not defined: {', '.join(missing)}" if missing else "")
    rows = _levels("Specificity of every label at given sensitivities", "sensitivity", sets, specificity_at)
    return ReportFigure("roc_labels", title, curves.roc_plot(sets), f"{title}: {caption}", caption + ".", rows)


def _reliability(evidence: RunResults) -> Iterator[ReportFigure | Missing]:
    stored = evidence.summary["calibration"]["labels"].get(HEADLINE, {"not_fitted": "the label is absent"})
    if "not_fitted" in stored:
        yield Missing("Calibration, out of fold", stored["not_fitted"])
    else:
        yield _reliability_of("calibration", OUT_OF_FOLD, {"before": stored["before"], **stored["after"]})
    for each in evidence.evaluations:
        found = each.record["calibration"].get(HEADLINE)
        if found is not None and found["before"]["brier"] is not None:
            name = f"calibration_{each.record['number']}"
            yield _reliability_of(name, each.title, {"before": found["before"], "after": found["after"]})


def _reliability_of(name: str, where: str, parts: Mapping[str, Mapping[str, Any]]) -> ReportFigure:
    key = "; ".join(f"{part}: calibration error {number(found['calibration_error'])}" for part, found in parts.items())
    rows = [
        [plain(part), Cell(number(p)), Cell(number(o)), plain(n)]
        for part, found in parts.items()
        for p, o, n in zip(*(found["reliability"][each] for each in ("predicted", "observed", "images")), strict=True)
    ]
    rows += [
        [
            plain(f"{part}, all"),
            Cell(f"Brier {number(found['brier'])}"),
            Cell(f"log loss {number(found['log_loss'])}"),
            plain(""),
        ]
        for part, found in parts.items()
    ]
    figure = curves.reliability_plot({part: found["reliability"] for part, found in parts.items()})
    table = Table(
        f"Reliability by bin, {where}", ["calibration", "mean probability", "share that has it", "images"], rows
    )
    title = f"Calibration of {HEADLINE}, {where}"
    caption = f"{key}. On the dotted line, the predicted share is the observed one."
    return ReportFigure(name, title, figure, f"{title}: {key}", caption, table)


def _decision(evidence: RunResults) -> Iterator[ReportFigure | Missing]:
    stored = {OUT_OF_FOLD: evidence.summary["decision_curve"].get(HEADLINE)}
    stored |= {each.title: (each.record["decision_curve"] or {}).get(HEADLINE) for each in evidence.evaluations}
    known = {name: curve for name, curve in stored.items() if curve is not None and curve["thresholds"]}
    if not known:
        yield Missing("Decision curve", "needs calibrated probabilities of images known to have it and known not to")
        return
    rows, said = [], []
    for name, curve in known.items():
        kept = range(0, len(curve["thresholds"]), max(1, len(curve["thresholds"]) // _DECISIONS))
        rows += [
            [plain(name), *(Cell(number(curve[key][at])) for key in ("thresholds", "model", "call_all"))] for at in kept
        ]
        better = [
            t for t, m, a in zip(*(curve[k] for k in ("thresholds", "model", "call_all")), strict=True) if m > max(a, 0)
        ]
        said.append(f"{name}: better than calling all or none {_range(better)}")
    key = "; ".join(said)
    table = Table("Net benefit by threshold", ["", "threshold", "model", "call all"], rows)
    caption = f"{key}. Net benefit counts true calls per image, less false ones weighed by the odds of the threshold."
    yield ReportFigure(
        "decision_curve", f"Decision curve of {HEADLINE}", curves.decision_plot(known), key, caption, table
    )


def _range(thresholds: Sequence[float]) -> str:
    return f"at thresholds of {min(thresholds):.2f} to {max(thresholds):.2f}" if thresholds else "at no threshold"


def _confusion(evidence: RunResults) -> Iterator[ReportFigure | Missing]:
    points = evidence.summary["operating_points"].get(HEADLINE, {"not_chosen": "the label is absent"})
    if not isinstance(points, list):
        yield Missing(f"Operating points of {HEADLINE}", str(points["not_chosen"]))
        return
    chosen = []
    for letter, point in zip(letters(points), points, strict=True):
        found, lost, alarms, spared = counts_of(point)
        chosen.append(Confusion(f"{letter} {point['name']}", found, alarms, spared, lost))
    yield _confusion_of("confusion", f"{OUT_OF_FOLD}, where they were chosen", chosen)
    for each in evidence.evaluations:
        judged = [(letter, judged_point(each, HEADLINE, at)) for at, letter in enumerate(letters(points))]
        made = [
            Confusion(f"{letter} {point['name']}", *(point["judged"][key] for key in _COUNTS))
            for letter, point in judged
            if point is not None
        ]
        if made:
            yield _confusion_of(f"confusion_{each.record['number']}", each.title, made)


_COUNTS = ("true_positives", "false_positives", "true_negatives", "false_negatives")


def _confusion_of(name: str, where: str, matrices: list[Confusion]) -> ReportFigure:
    title = f"Confusion at the frozen points, {where}"
    first = matrices[0]
    missed, alarms = first.false_negatives, first.false_positives
    key = f"at {first.title}: {first.true_positives} found, {missed} missed, {alarms} false alarms"
    rows = [[plain(matrix.title), *(plain(count) for count in matrix[1:])] for matrix in matrices]
    table = Table(f"Counts, {where}", ["operating point", *(each.replace("_", " ") for each in _COUNTS)], rows)
    return ReportFigure(
        name, title, plots.confusion_plot(matrices, HEADLINE), f"{title}; {key}", "Shares are of a row.", table
    )

"""The figures of a report: a plot with its caption, a text alternative with the key numbers, and a table of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

from melanoma_dist.artifacts.predictions import arrays
from melanoma_dist.evaluate.report import plots, statements
from melanoma_dist.evaluate.report.cells import estimate_text
from melanoma_dist.evaluate.report.label_figures import label_figures, levels_table
from melanoma_dist.evaluate.report.plots import (
    Band,
    Confusion,
    Mark,
    ScoredImages,
    precision_at,
    scored_images,
    specificity_at,
)
from melanoma_dist.evaluate.report.run_results import OUT_OF_FOLD, RunResults, headline
from melanoma_dist.evaluate.report.tables import counts_in, counts_of, evaluated_point, letters
from melanoma_dist.metrics.bootstrap import roc_band
from melanoma_dist.metrics.calibration import CalibrationQuality
from melanoma_dist.metrics.intervals import Interval, Undefined
from melanoma_dist.metrics.subgroups import Subgroup
from melanoma_dist.pages.numbers import number
from melanoma_dist.pages.svg import PageFigure
from melanoma_dist.pages.tables import Cell, Table, plain

_DECISIONS = 12  # thresholds of a decision curve in its table
_ROUNDING = 1e-9  # a difference of net benefit that is none
_COUNTS = ("true_positives", "false_positives", "true_negatives", "false_negatives")


class Missing(NamedTuple):
    """A figure that the data does not allow, and why."""

    title: str
    reason: str


def headline_figures(results: RunResults) -> list[PageFigure | Missing]:
    """Return the curves of the headline label, out of fold and of each evaluation, and those of every label."""
    sets, missing = _sets(results)
    figures: list[PageFigure | Missing] = list(missing)
    if sets:
        figures += [_roc(results, sets), _precision_recall(results.label, sets)]
    return [*figures, *label_figures(results), *_reliability(results), *_decision(results), *_confusion(results)]


def subgroup_figure(
    title: str, label: str, subgroups: Sequence[Subgroup], overall: float | None, table: Table, threshold: str,
    flagged: str,
) -> PageFigure:  # fmt: skip
    """Return the AUC of each subgroup; ``threshold`` describes that of the table's sensitivity.

    ``flagged`` says which subgroups differ.
    """
    alt = f"{title}: AUC of {len(subgroups)} subgroups of {label}. {flagged}"
    caption = f"AUC with 95 % intervals; dotted: all images. {flagged} Threshold of the table: {threshold}."
    return PageFigure("subgroups", title, plots.forest_plot(subgroups, overall), alt, caption, table)


def _sets(results: RunResults) -> tuple[list[ScoredImages], list[Missing]]:
    """Return the predictions of the headline label by their origin, out of fold first."""
    tables = {OUT_OF_FOLD: results.table} | {each.title: each.table for each in results.evaluations}
    sets = {name: scored_images(name, table, results.label) for name, table in tables.items() if results.label in table}
    missing = [
        Missing(f"Curves of {results.label}, {name}", "needs images known to have it and images known not to")
        for name in tables
        if sets.get(name) is None
    ]
    return [images for images in sets.values() if images is not None], missing


def _roc(results: RunResults, sets: list[ScoredImages]) -> PageFigure:
    folds = [
        images
        for fold, rows in results.table.groupby("fold")
        if (images := scored_images(f"fold {fold}", rows, results.label)) is not None
    ]
    aucs = {OUT_OF_FOLD: headline(results.summary.out_of_fold, results.label)}
    aucs |= {each.title: headline(each.results.ensemble, results.label) for each in results.evaluations}
    key = "; ".join(f"{each.name} AUC {estimate_text(aucs[each.name], ', 95 % interval {}')}" for each in sets)
    marks, names = _marks(results, sets)
    caption = f"{key}. The bands are 95 % intervals of the sensitivity at each specificity, by the AUC's own resamples."
    if names:
        caption += f" Letters are operating points, on the curve that chose or evaluated them: {names}."
    table = levels_table(f"Specificity of {results.label} at fixed sensitivities", "sensitivity", sets, specificity_at)
    figure = plots.roc_plot(sets, folds, marks, _bands(results, sets))
    return PageFigure("roc", f"ROC of {results.label}", figure, key, caption, table)


def _bands(results: RunResults, sets: list[ScoredImages]) -> dict[str, Band]:
    sources = {OUT_OF_FOLD: (results.table, results.summary.out_of_fold)}
    sources |= {each.title: (each.table, each.results.ensemble) for each in results.evaluations}
    labels = results.summary.label_set
    bands = {}
    for images in sets:
        table, settings = sources[images.name][0], sources[images.name][1].bootstrap
        bands[images.name] = roc_band(
            *arrays(table, labels),
            table["group"].to_numpy(),
            labels.headline_column,
            plots.SPECIFICITIES,
            settings.resamples,
            settings.seed,
            settings.level,
        )
    return bands


def _marks(results: RunResults, sets: list[ScoredImages]) -> tuple[list[Mark], str]:
    points = results.summary.operating_points.get(results.label)
    if not isinstance(points, tuple):
        return [], ""
    series = {images.name: position for position, images in enumerate(sets)}
    marks = []
    for index, (letter, point) in enumerate(zip(letters(points), points, strict=True)):
        if OUT_OF_FOLD in series and not results.evaluations:
            marks.append(Mark(letter, point.sensitivity, point.specificity, series[OUT_OF_FOLD]))
        for each in results.evaluations:
            evaluated = evaluated_point(each, results.label, index)
            if evaluated is None or each.title not in series:
                continue
            reached = evaluated.counts.sensitivity, evaluated.counts.specificity
            if isinstance(reached[0], Interval) and isinstance(reached[1], Interval):
                marks.append(Mark(letter, reached[0].estimate, reached[1].estimate, series[each.title]))
    return marks, ", ".join(f"{letter} {point.name}" for letter, point in zip(letters(points), points, strict=True))


def _precision_recall(label: str, sets: list[ScoredImages]) -> PageFigure:
    key = "; ".join(
        f"{each.name}: precision {precision_at(each, 0.9):.3f} at recall 0.90, {each.truth.mean():.1%} positive"
        for each in sets
    )
    table = levels_table("Precision at fixed recalls", "recall", sets, precision_at)
    caption = f"{key}. Dotted: the share of positives, which chance reaches."
    figure = plots.precision_recall_plot(sets)
    return PageFigure("precision_recall", f"Precision and recall of {label}", figure, key, caption, table)


def _reliability(results: RunResults) -> Iterator[PageFigure | Missing]:
    stored = results.summary.calibration.labels.get(results.label, Undefined("the label is absent"))
    if isinstance(stored, Undefined):
        yield Missing("Calibration, out of fold", stored.reason)
    else:
        why = statements.calibrator(results.summary.calibration.used, stored)
        yield _reliability_figure(
            "calibration", results.label, OUT_OF_FOLD, {"before": stored.before, **stored.after}, why
        )
    for each in results.evaluations:
        quality = each.results.calibration.get(results.label)
        if quality is not None and quality.before.brier is not None:
            name = f"calibration_{each.record.number}"
            yield _reliability_figure(
                name, results.label, each.title, {"before": quality.before, "after": quality.after}
            )


def _reliability_figure(
    name: str, label: str, where: str, qualities: Mapping[str, CalibrationQuality], why: str = ""
) -> PageFigure:
    key = "; ".join(
        f"{part}: calibration error {number(quality.calibration_error)}" for part, quality in qualities.items()
    )
    rows = [
        [plain(part), Cell(number(predicted)), Cell(number(observed)), plain(images)]
        for part, quality in qualities.items()
        for predicted, observed, images in zip(
            quality.reliability.predicted, quality.reliability.observed, quality.reliability.images, strict=True
        )
    ]
    for part, quality in qualities.items():
        scores = f"Brier {number(quality.brier)}", f"log loss {number(quality.log_loss)}"
        rows.append([plain(f"{part}, all"), *map(plain, scores), plain("")])
    table = Table(
        f"Reliability by bin, {where}", ["calibration", "mean probability", "share of positives", "images"], rows
    )
    title = f"Calibration of {label}, {where}"
    figure = plots.reliability_plot({part: quality.reliability for part, quality in qualities.items()})
    caption = f"{key}. On the dotted line, the predicted share is the observed one. {why}".rstrip()
    return PageFigure(name, title, figure, f"{title}: {key}", caption, table)


def _ranges(thresholds: Sequence[float], better: Sequence[bool]) -> Iterator[str]:
    """The first and the last threshold of each unbroken range that is better."""
    for is_better, group in groupby(zip(thresholds, better, strict=True), key=lambda pair: pair[1]):
        ends = [threshold for threshold, _ in group]
        if is_better:
            yield f"{ends[0]:.2f}" if len(ends) == 1 else f"{ends[0]:.2f} to {ends[-1]:.2f}"


def _decision(results: RunResults) -> Iterator[PageFigure | Missing]:
    stored = {OUT_OF_FOLD: results.summary.decision_curve.get(results.label)}
    stored |= {each.title: each.results.decision_curve.get(results.label) for each in results.evaluations}
    curves = {name: curve for name, curve in stored.items() if curve is not None and curve.thresholds}
    if not curves:
        yield Missing("Decision curve", "needs calibrated probabilities of images known to have it and known not to")
        return
    rows, sentences = [], []
    for name, curve in curves.items():
        columns = (curve.thresholds, curve.model, curve.call_all)
        count = len(curve.thresholds)
        rows += [
            [plain(name), *(Cell(number(column[row])) for column in columns)]
            for row in range(0, count, max(1, count // _DECISIONS))
        ]
        better = [model > max(call_all, 0) + _ROUNDING for _, model, call_all in zip(*columns, strict=True)]
        ranges = list(_ranges(curve.thresholds, better))
        where = f"at thresholds of {', '.join(ranges)}" if ranges else "at no threshold"
        sentences.append(f"{name}: better than calling all or none {where}")
    key = "; ".join(sentences)
    table = Table("Net benefit by threshold", ["", "threshold", "model", "call all"], rows)
    caption = (
        f"{key}. Net benefit: true positives per image, less false positives weighted by the odds of the threshold."
    )
    figure = plots.decision_plot(curves)
    yield PageFigure("decision_curve", f"Decision curve of {results.label}", figure, key, caption, table)


def _confusion(results: RunResults) -> Iterator[PageFigure | Missing]:
    points = results.summary.operating_points.get(results.label, Undefined("the label is absent"))
    if isinstance(points, Undefined):
        yield Missing(f"Operating points of {results.label}", points.reason)
        return
    names = [f"{letter} {point.name}" for letter, point in zip(letters(points), points, strict=True)]
    chosen = [Confusion(name, *counts_of(point)) for name, point in zip(names, points, strict=True)]
    yield _confusion_figure("confusion", results.label, f"{OUT_OF_FOLD}, where they were chosen", chosen)
    for each in results.evaluations:
        evaluated = [(name, evaluated_point(each, results.label, index)) for index, name in enumerate(names)]
        matrices = [Confusion(name, *counts_in(point)) for name, point in evaluated if point is not None]
        if matrices:
            yield _confusion_figure(f"confusion_{each.record.number}", results.label, each.title, matrices)


def _confusion_figure(name: str, label: str, where: str, matrices: list[Confusion]) -> PageFigure:
    title = f"Confusion at the operating points, {where}"
    first = matrices[0]
    key = (
        f"at {first.title}: {first.true_positives} true positives, {first.false_negatives} missed, "
        f"{first.false_positives} false alarms"
    )
    rows = [[plain(matrix.title), *map(plain, matrix[1:])] for matrix in matrices]
    table = Table(f"Counts, {where}", ["operating point", *(each.replace("_", " ") for each in _COUNTS)], rows)
    figure = plots.confusion_plot(matrices, label)
    return PageFigure(name, title, figure, f"{title}; {key}", "Shares are of a row.", table)

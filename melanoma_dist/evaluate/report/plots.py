"""The plots of a report as functions of plain data: curves of a label, confusion matrices, trainings, subgroups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import precision_recall_curve, roc_curve

from melanoma_dist.artifacts.epochs import EpochRecord
from melanoma_dist.data.labels import TRUE
from melanoma_dist.metrics.calibration import Reliability
from melanoma_dist.metrics.intervals import Undefined
from melanoma_dist.metrics.operating_points import DecisionCurve
from melanoma_dist.metrics.subgroups import Gap, Subgroup
from melanoma_dist.pages.svg import BLUE, GREY, INK, RED, SERIES, plot, style

Floats = npt.NDArray[np.floating[Any]]
_WIDTH = 3.9  # inches: at 96 pixels an inch it fits a phone at full size
_MOST_POINTS = 400  # of a drawn curve
_ROW = 0.27  # inches of a row of text
_LIGHT = "#bbbbbb"


class ScoredImages(NamedTuple):
    """The images of known truth for one label: truth (1, 0) and probability [n], some of either truth."""

    name: str
    truth: Floats
    probability: Floats


class Mark(NamedTuple):
    """A point on a ROC curve."""

    letter: str
    sensitivity: float
    specificity: float
    series: int
    """Which curve it lies on."""


def scored_images(name: str, table: pd.DataFrame, label: str) -> ScoredImages | None:
    """Return the images of known truth of a table of predictions; None unless there are positives and negatives."""
    known = table[table[label + TRUE].notna()]
    truth = known[label + TRUE].to_numpy(dtype=np.float64)
    if not truth.any() or truth.all():
        return None
    return ScoredImages(name, truth, known[label].to_numpy(dtype=np.float64))


def specificity_at(images: ScoredImages, sensitivity: float) -> float:
    """Return the highest specificity of any threshold that reaches a sensitivity."""
    false, true, _ = roc_curve(images.truth, images.probability, drop_intermediate=False)
    return float(1 - false[np.argmax(true >= sensitivity - 1e-12)])


def precision_at(images: ScoredImages, recall: float) -> float:
    """Return the highest precision of any threshold that reaches a recall."""
    precision, reached, _ = precision_recall_curve(images.truth, images.probability)
    return float(precision[reached >= recall - 1e-12].max())


def roc_plot(sets: Sequence[ScoredImages], folds: Sequence[ScoredImages] = (), marks: Sequence[Mark] = ()) -> Figure:
    """Draw ROC curves: each fold thin and grey, the sets thick, marked points as letters."""
    figure, axes = _square("1 - specificity", "sensitivity")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    for fold in folds:
        false, true, _ = roc_curve(fold.truth, fold.probability)
        axes.plot(*_thinned(false, true), color=_LIGHT, linewidth=0.7)
    for images, colour in zip(sets, _colours(len(sets)), strict=True):
        false, true, _ = roc_curve(images.truth, images.probability)
        axes.plot(*_thinned(false, true), color=colour, linewidth=1.6, label=images.name)
    if folds:
        axes.plot([], [], color=_LIGHT, linewidth=0.7, label="each fold")
    for mark in marks:
        at = (1 - mark.specificity, mark.sensitivity)
        axes.plot(*at, "o", color=SERIES[mark.series % len(SERIES)], markersize=8, markeredgecolor="white")
        axes.text(*at, mark.letter, color="white", fontsize=6, ha="center", va="center_baseline", weight="bold")
    _legend(axes, "lower right")
    return figure


def precision_recall_plot(sets: Sequence[ScoredImages]) -> Figure:
    """Draw precision against recall; dotted, the share of positives, which chance reaches."""
    figure, axes = _square("recall (sensitivity)", "precision")
    for images, colour in zip(sets, _colours(len(sets)), strict=True):
        precision, recall, _ = precision_recall_curve(images.truth, images.probability)
        axes.plot(*_thinned(recall, precision), color=colour, linewidth=1.6, label=images.name)
        axes.axhline(float(images.truth.mean()), color=colour, linewidth=0.8, linestyle=":")
    _legend(axes, "best")
    return figure


def reliability_plot(diagrams: Mapping[str, Reliability]) -> Figure:
    """Draw reliability diagrams by name: share of positives against mean probability; larger dots hold more images."""
    figure, axes = _square("mean probability of a bin", "share of positives")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    colours = [GREY, *_colours(max(len(diagrams) - 1, 0))]
    for (name, diagram), colour in zip(diagrams.items(), colours, strict=False):
        images = np.asarray(diagram.images, dtype=np.float64)
        share = images / images.sum() if len(images) else images
        axes.plot(diagram.predicted, diagram.observed, color=colour, linewidth=1.2, label=name)
        axes.scatter(diagram.predicted, diagram.observed, s=6 + 90 * share, color=colour)
    _legend(axes, "best")
    return figure


def decision_plot(curves: Mapping[str, DecisionCurve]) -> Figure:
    """Draw net benefit against the threshold, by name, beside calling all and calling none."""
    figure, axes = plot(_WIDTH, 3.2)
    axes.axhline(0, color=INK, linewidth=0.8, label="call none")
    top = 0.0
    for (name, curve), colour in zip(curves.items(), _colours(len(curves)), strict=True):
        axes.plot(curve.thresholds, curve.call_all, color=colour, linewidth=0.9, linestyle=":")
        axes.plot(curve.thresholds, curve.model, color=colour, linewidth=1.6, label=name)
        top = max(top, *curve.model, *curve.call_all)
    axes.plot([], [], color=GREY, linewidth=0.9, linestyle=":", label="call all")
    axes.set_ylim(-0.25 * top - 0.01, 1.1 * top + 0.01)
    axes.set_xlabel("threshold probability")
    axes.set_ylabel("net benefit")
    _legend(axes, "best")
    return figure


def _square(x: str, y: str) -> tuple[Figure, Axes]:
    figure, axes = plot(_WIDTH, _WIDTH)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def _thinned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """Keep evenly spaced points and both ends: more than these are invisible and make the page large."""
    points = np.unique(np.linspace(0, len(x) - 1, min(len(x), _MOST_POINTS)).astype(int))
    return x[points], y[points]


def _colours(count: int) -> list[str]:
    return [SERIES[at % len(SERIES)] for at in range(count)]


def _legend(axes: Axes, place: Literal["lower right", "best"]) -> None:
    axes.legend(loc=place, frameon=True, framealpha=0.85, edgecolor="none", fontsize=8)


class Confusion(NamedTuple):
    """The four counts of a threshold."""

    title: str
    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int


def confusion_plot(matrices: Sequence[Confusion], label: str) -> Figure:
    """Draw confusion matrices, two in a row, each cell shaded by its share of its row."""
    columns = 2
    rows = -(-len(matrices) // columns)
    figure = Figure(figsize=(_WIDTH, 1.95 * rows), layout="constrained")
    for at, matrix in enumerate(matrices):
        _confusion(figure.add_subplot(rows, columns, at + 1), matrix, label)
    return figure


def _confusion(axes: Axes, matrix: Confusion, label: str) -> None:
    counts = np.array(
        [[matrix.true_positives, matrix.false_negatives], [matrix.false_positives, matrix.true_negatives]]
    )
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row in range(2):
        for column in range(2):
            share = shares[row, column]
            text = f"{counts[row, column]:,}\n{share:.1%}"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if share > 0.55 else INK)
    axes.set_xticks([0, 1], ["called", "not called"], fontsize=7)
    axes.set_yticks([0, 1], [label, f"not {label}"], fontsize=7, rotation=90, va="center")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(matrix.title, fontsize=8)


def learning_plot(histories: Mapping[str, Sequence[EpochRecord]], score: str) -> Figure:
    """Draw training loss and validation score by epoch, a line per training; a dot marks the best epoch."""
    figure = Figure(figsize=(_WIDTH, 4.4), layout="constrained")
    loss, validation = figure.subplots(2, 1, sharex=True)
    for at, (name, epochs) in enumerate(histories.items()):
        colour = SERIES[at % len(SERIES)]
        numbers = [epoch.epoch for epoch in epochs]
        scores = [epoch.score for epoch in epochs]
        loss.plot(numbers, [epoch.train_loss for epoch in epochs], color=colour, linewidth=1.2)
        validation.plot(numbers, scores, color=colour, linewidth=1.2, label=name)
        best = epochs[-1].best_epoch
        validation.plot([best], [scores[numbers.index(best)]], "o", color=colour, markersize=5)
    for axes, name in ((loss, "training loss"), (validation, f"validation {score}")):
        style(axes)
        axes.set_ylabel(name)
    validation.set_xlabel("epoch")
    validation.xaxis.set_major_locator(MaxNLocator(integer=True))
    if 0 < len(histories) <= len(SERIES):
        validation.legend(frameon=False, fontsize=7, ncols=2)
    return figure


def spread_plot(values: Mapping[str, Sequence[float]], intervals: Mapping[str, tuple[float, float, float]]) -> Figure:
    """Draw each fold's AUC as a dot, a row per label, with the interval (mean, low, high) of the mean as a line."""
    names = list(values)
    figure, axes = plot(_WIDTH, 0.9 + 0.36 * len(names))
    for row, name in enumerate(names):
        axes.plot(values[name], [row] * len(values[name]), "o", color=BLUE, markersize=5, alpha=0.65)
        if name in intervals:
            mean, low, high = intervals[name]
            axes.plot([low, high], [row + 0.28] * 2, color=INK, linewidth=1.2)
            axes.plot([mean], [row + 0.28], "|", color=INK, markersize=8, markeredgewidth=2)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel("AUC")
    return figure


def seeds_plot(aucs: Sequence[Sequence[float]], seeds: Sequence[int]) -> Figure:
    """Draw the AUC of each training, [folds][seeds]: a row per fold, a colour per seed."""
    figure, axes = plot(_WIDTH, 0.9 + 0.3 * len(aucs))
    for at, seed in enumerate(seeds):
        colour = SERIES[at % len(SERIES)]
        axes.plot([fold[at] for fold in aucs], range(len(aucs)), "o", color=colour, markersize=5, label=f"seed {seed}")
    axes.set_yticks(range(len(aucs)), [f"fold {fold}" for fold in range(len(aucs))])
    axes.set_ylim(len(aucs) - 0.5, -0.5)
    axes.set_xlabel("AUC")
    axes.legend(frameon=False, fontsize=7)
    return figure


def forest_plot(subgroups: Sequence[Subgroup], overall: float | None) -> Figure:
    """Draw AUC, interval and counts of each subgroup; flagged ones in red, all images as a dotted line."""
    figure, axes = plot(6.6, 0.9 + _ROW * len(subgroups))
    if overall is not None:
        axes.axvline(overall, color=GREY, linewidth=0.9, linestyle=":")
    for row, subgroup in enumerate(subgroups):
        _forest_row(axes, row, subgroup)
    names = [f"{subgroup.attribute}: {subgroup.value}" for subgroup in subgroups]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel("AUC")
    axes.set_xlim(max(0.0, min(0.5, axes.get_xlim()[0])), 1.012)  # a dot at 1 is whole
    return figure


def _forest_row(axes: Axes, row: int, subgroup: Subgroup) -> None:
    counts = f"{subgroup.images:,} images, {subgroup.positives:,} positive"
    axes.text(1.01, row, counts, transform=axes.get_yaxis_transform(), va="center", fontsize=7.5)
    auc = subgroup.auc
    if isinstance(auc, Undefined):
        axes.text(0.5, row, "not defined", transform=axes.get_yaxis_transform(), va="center", fontsize=7.5, color=GREY)
        return
    flagged = isinstance(subgroup.gap, Gap) and subgroup.gap.flagged
    colour = RED if flagged else BLUE
    axes.plot([auc.low, auc.high], [row, row], color=colour, linewidth=1.4)
    axes.plot([auc.estimate], [row], "D" if flagged else "o", color=colour, markersize=5)

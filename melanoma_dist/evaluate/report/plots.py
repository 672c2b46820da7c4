"""The plots of a report as functions of plain data: curves of a label, confusion matrices, trainings, subgroups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import precision_recall_curve, roc_curve

from melanoma_dist.data.labels import TRUE
from melanoma_dist.metrics.calibration import Reliability
from melanoma_dist.metrics.intervals import Undefined
from melanoma_dist.metrics.operating_points import DecisionCurve
from melanoma_dist.metrics.subgroups import Gap, Subgroup
from melanoma_dist.pages.svg import BLUE, GREY, INK, RED, SERIES, WIDTH, plot, style

Floats = npt.NDArray[np.floating[Any]]
_MOST_POINTS = 400  # of a drawn curve
_ROW = 0.27  # inches of a row of text
_LIGHT = "#bbbbbb"
_BINS = 20  # of a histogram
SPECIFICITIES = np.linspace(0, 1, 101)
"""Where the band of a ROC curve has its points."""
Band = tuple[Floats, Floats]
"""Both ends of the interval of the sensitivity at each of ``SPECIFICITIES``."""


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


def roc_plot(
    sets: Sequence[ScoredImages],
    folds: Sequence[ScoredImages] = (),
    marks: Sequence[Mark] = (),
    bands: Mapping[str, Band] | None = None,
) -> Figure:
    """Draw ROC curves: each fold thin and grey, the sets thick with their bands, marked points as letters."""
    figure, axes = _square("1 - specificity", "sensitivity")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    for fold in folds:
        false, true, _ = roc_curve(fold.truth, fold.probability)
        axes.plot(*_thinned(false, true), color=_LIGHT, linewidth=0.7)
    for images, colour in zip(sets, _colours(len(sets)), strict=True):
        false, true, _ = roc_curve(images.truth, images.probability)
        axes.plot(*_thinned(false, true), color=colour, linewidth=1.6, label=images.name)
        if bands:
            axes.fill_between(1 - SPECIFICITIES, *bands[images.name], color=colour, alpha=0.16, linewidth=0)
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
    figure, axes = plot(WIDTH, 3.2)
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
    figure, axes = plot(WIDTH, WIDTH)
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
    figure = Figure(figsize=(WIDTH, 1.95 * rows), layout="constrained")
    for at, matrix in enumerate(matrices):
        _confusion(figure.add_subplot(rows, columns, at + 1), matrix, label)
    return figure


def _confusion(axes: Axes, matrix: Confusion, label: str) -> None:
    counts = [[matrix.true_positives, matrix.false_negatives], [matrix.false_positives, matrix.true_negatives]]
    _matrix(axes, np.array(counts), "{:,}\n{:.1%}", 8)
    axes.set_xticks([0, 1], ["called", "not called"], fontsize=7)
    axes.set_yticks([0, 1], [label, f"not {label}"], fontsize=7, rotation=90, va="center")
    axes.set_title(matrix.title, fontsize=8)


def matrix_plot(counts: npt.NDArray[np.int_], rows: Sequence[str], columns: Sequence[str]) -> Figure:
    """Draw counts of images by class (rows) and by predicted class, each cell shaded by its share of its row."""
    figure = Figure(figsize=(WIDTH, WIDTH), layout="constrained")
    axes = figure.add_subplot()
    _matrix(axes, counts, "{:,}", 6.5)
    axes.set_xticks(range(len(columns)), columns, fontsize=7, rotation=45)
    axes.set_yticks(range(len(rows)), rows, fontsize=7)
    axes.set_xlabel("highest probability")
    axes.set_ylabel("class")
    return figure


def _matrix(axes: Axes, counts: npt.NDArray[np.int_], text: str, size: float) -> None:
    """Draw a matrix; ``text`` formats the count of a cell and its share of its row."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        colour = "white" if share > 0.55 else INK
        content = text.format(counts[row, column], share)
        axes.text(column, row, content, ha="center", va="center", fontsize=size, color=colour)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def histogram_plot(sets: Sequence[ScoredImages]) -> Figure:
    """Draw how the probabilities of the images with a label (blue) and without it (grey) spread, a plot per label."""
    columns = min(2, len(sets))
    rows = -(-len(sets) // columns)
    figure = Figure(figsize=(WIDTH, 0.6 + (1.3 if columns > 1 else 2.4) * rows), layout="constrained")
    for at, images in enumerate(sets):
        axes = figure.add_subplot(rows, columns, at + 1)
        style(axes)
        for truth, colour in ((0, GREY), (1, BLUE)):
            values = images.probability[images.truth == truth]
            counts, edges = np.histogram(values, _BINS, (0, 1))
            axes.stairs(counts / len(values), edges, fill=True, color=colour, alpha=0.55)
        axes.set_title(images.name, fontsize=8)
        axes.tick_params(labelsize=7)
    figure.supxlabel("probability", fontsize=8)
    figure.supylabel("share of images", fontsize=8)
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

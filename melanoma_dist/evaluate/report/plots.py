"""Plots of a run: confusion matrices, learning curves, folds and seeds, subgroups. Each is a function of plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from melanoma_dist.artifacts.epochs import EpochRecord
from melanoma_dist.pages.svg import BLUE, GREY, INK, RED, SERIES, plot, style

_WIDTH = 3.9
_ROW = 0.27  # inches of a row of text


class Confusion(NamedTuple):
    """The four counts of a threshold."""

    title: str
    true_positives: int
    false_positives: int
    true_negatives: int
    false_negatives: int


def confusion_plot(matrices: Sequence[Confusion], label: str) -> Figure:
    """Confusion matrices two in a row, each cell shaded by its share of its row."""
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
    """Training loss and validation score by epoch, a line per training; a dot marks the best epoch."""
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
    """A dot for each fold's AUC, a row for each label; ``intervals`` (mean, low, high) as a line where there is one."""
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
    """AUC of each training, [folds][seeds]: a row for each fold, a colour for each seed."""
    figure, axes = plot(_WIDTH, 0.9 + 0.3 * len(aucs))
    for at, seed in enumerate(seeds):
        colour = SERIES[at % len(SERIES)]
        axes.plot([fold[at] for fold in aucs], range(len(aucs)), "o", color=colour, markersize=5, label=f"seed {seed}")
    axes.set_yticks(range(len(aucs)), [f"fold {fold}" for fold in range(len(aucs))])
    axes.set_ylim(len(aucs) - 0.5, -0.5)
    axes.set_xlabel("AUC")
    axes.legend(frameon=False, fontsize=7)
    return figure


def forest_plot(subgroups: Sequence[Mapping[str, Any]], overall: float | None) -> Figure:
    """AUC and interval of each subgroup with its counts; flagged ones in red, the whole as a dotted line."""
    figure, axes = plot(6.6, 0.9 + _ROW * len(subgroups))
    if overall is not None:
        axes.axvline(overall, color=GREY, linewidth=0.9, linestyle=":")
    for row, found in enumerate(subgroups):
        _forest_row(axes, row, found)
    names = [f"{found['attribute']}: {found['value']}" for found in subgroups]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlabel("AUC")
    axes.set_xlim(max(0.0, min(0.5, axes.get_xlim()[0])), 1.012)  # a dot at 1 is whole
    return figure


def _forest_row(axes: Axes, row: int, found: Mapping[str, Any]) -> None:
    counts = f"{found['images']:,} images, {found['positives']:,} positive"
    axes.text(1.01, row, counts, transform=axes.get_yaxis_transform(), va="center", fontsize=7.5)
    auc = found["auc"]
    if "not_defined" in auc or auc["estimate"] is None:
        axes.text(0.5, row, "not defined", transform=axes.get_yaxis_transform(), va="center", fontsize=7.5, color=GREY)
        return
    flagged = found["gap"].get("flagged", False)
    colour = RED if flagged else BLUE
    if auc["low"] is not None and auc["high"] is not None:
        axes.plot([auc["low"], auc["high"]], [row, row], color=colour, linewidth=1.4)
    axes.plot([auc["estimate"]], [row], "D" if flagged else "o", color=colour, markersize=5)

"""Draw the course of trainings: learning curves, and the spread of the AUC over folds and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from melanoma_dist.artifacts.epochs import EpochRecord
from melanoma_dist.pages.svg import BLUE, INK, SERIES, WIDTH, plot, style


def learning_plot(histories: Mapping[str, Sequence[EpochRecord]], score: str) -> Figure:
    """Draw losses (validation dashed) and validation score by epoch, a colour per training; a dot is the best epoch."""
    figure = Figure(figsize=(WIDTH, 4.4), layout="constrained")
    loss, validation = figure.subplots(2, 1, sharex=True)
    for at, (name, epochs) in enumerate(histories.items()):
        colour = SERIES[at % len(SERIES)]
        numbers = [epoch.epoch for epoch in epochs]
        scores = [epoch.score for epoch in epochs]
        loss.plot(numbers, [epoch.train_loss for epoch in epochs], color=colour, linewidth=1.2)
        loss.plot(numbers, [epoch.validation_loss for epoch in epochs], color=colour, linewidth=1.2, linestyle="--")
        validation.plot(numbers, scores, color=colour, linewidth=1.2, label=name)
        best = epochs[-1].best_epoch
        validation.plot([best], [scores[numbers.index(best)]], "o", color=colour, markersize=5)
    for axes, name in ((loss, "loss"), (validation, f"validation {score}")):
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
    figure, axes = plot(WIDTH, 0.9 + 0.36 * len(names))
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
    figure, axes = plot(WIDTH, 0.9 + 0.3 * len(aucs))
    for at, seed in enumerate(seeds):
        colour = SERIES[at % len(SERIES)]
        axes.plot([fold[at] for fold in aucs], range(len(aucs)), "o", color=colour, markersize=5, label=f"seed {seed}")
    axes.set_yticks(range(len(aucs)), [f"fold {fold}" for fold in range(len(aucs))])
    axes.set_ylim(len(aucs) - 0.5, -0.5)
    axes.set_xlabel("AUC")
    axes.legend(frameon=False, fontsize=7)
    return figure

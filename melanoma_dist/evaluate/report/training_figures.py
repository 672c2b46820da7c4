"""The figures of the course of a training: learning curves, and the spread of the AUC over folds and seeds."""

from __future__ import annotations

import numpy as np

from melanoma_dist.artifacts.summary import SeedRepeats
from melanoma_dist.evaluate.report import training_plots as plots
from melanoma_dist.evaluate.report.cells import NOT_BY_DATA
from melanoma_dist.evaluate.report.run_results import RunResults
from melanoma_dist.metrics.cross_validation import FEWEST_FOLDS
from melanoma_dist.pages.numbers import number, span
from melanoma_dist.pages.svg import PageFigure
from melanoma_dist.pages.tables import Cell, Table, measured, plain


def training_figures(results: RunResults) -> list[PageFigure]:
    """Return learning curves, the spread over folds and, if the run repeated them, over seeds."""
    figures = [_learning(results)] if results.histories else []
    figures.append(_fold_spread(results))
    if results.summary.seed_repeats is not None:
        figures += _seeds(results.summary.seed_repeats, results.label)
    return figures


def _learning(results: RunResults) -> PageFigure:
    rows = [
        [plain(name), plain(epoch.epoch), *(Cell(number(loss, 4)) for loss in losses), Cell(number(epoch.score))]
        for name, epochs in results.histories.items()
        for epoch in epochs
        for losses in [(epoch.train_loss, epoch.validation_loss)]
    ]
    best = ", ".join(f"{name} {epochs[-1].best_epoch} of {len(epochs)}" for name, epochs in results.histories.items())
    table = Table(
        "Epochs",
        ["training", "epoch", "training loss", "validation loss", f"validation {results.summary.headline}"],
        rows,
    )
    caption = f"Validation loss dashed. Dots mark the best epochs, whose weights are the fold's model: {best}."
    caption = " ".join([caption, *(f"{advice[0].upper()}{advice[1:]}" for advice in results.summary.advice)])
    alt = f"Losses and validation AUC by epoch. {caption}"
    return PageFigure(
        "learning",
        "Learning curves",
        plots.learning_plot(results.histories, results.summary.headline),
        alt,
        caption,
        table,
    )


def _fold_spread(results: RunResults) -> PageFigure:
    folds = results.summary.folds
    values, rows = {}, []
    for label in [*results.summary.labels, *(["macro"] if len(results.summary.labels) > 1 else [])]:
        aucs = [(fold.macro if label == "macro" else fold.labels[label]).auc for fold in folds.values()]
        values[label] = [auc for auc in aucs if auc is not None]
        rows.append([plain(label), *(measured(auc, NOT_BY_DATA) for auc in aucs)])
    intervals = {
        label: (spread.auc.mean, spread.auc.low, spread.auc.high)
        for label, spread in results.summary.over_folds.items()
        if spread.auc.mean is not None and spread.auc.low is not None and spread.auc.high is not None
    }
    means = {label: f"{label} mean {np.mean(aucs):.3f}" for label, aucs in values.items() if aucs}
    ends = {label: f", 95 % interval {span(low, high)}" for label, (_, low, high) in intervals.items()}
    key = "; ".join(mean + ends.get(label, "") for label, mean in means.items())
    table = Table("AUC by fold", ["AUC", *(f"fold {fold}" for fold in folds)], rows)
    figure = plots.spread_plot(values, intervals)
    caption = f"A dot is a fold; a line is the corrected 95 % interval of their mean, from {FEWEST_FOLDS} folds on."
    alt = f"AUC of each fold by label. {key or 'No fold defines it'}"
    return PageFigure("fold_spread", "AUC by fold", figure, alt, caption, table)


def _seeds(repeats: SeedRepeats, label: str) -> list[PageFigure]:
    seeds = repeats.seeds
    aucs = [[value for value in fold if value is not None] for fold in repeats.auc.get(label, ())]
    if not aucs or any(len(fold) < len(seeds) for fold in aucs):
        return []
    rows = [[plain(f"fold {fold}"), *(Cell(number(value)) for value in values)] for fold, values in enumerate(aucs)]
    table = Table(f"AUC of {label}", ["", *(f"seed {seed}" for seed in seeds)], rows)
    title = f"AUC of {label} by fold and seed"
    alt = f"{title}: {len(aucs)} folds, each trained with {len(seeds)} seeds"
    caption = "Dots in a row differ by the seed alone; rows differ by the images that measure them, too."
    return [PageFigure("seeds", title, plots.seeds_plot(aucs, seeds), alt, caption, table)]

"""The figures of every label: ROC curves, the confusion of classes, and histograms of probabilities."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pandas as pd

from melanoma_dist.artifacts.predictions import arrays
from melanoma_dist.evaluate.report import plots
from melanoma_dist.evaluate.report.plots import ScoredImages, scored_images, specificity_at
from melanoma_dist.evaluate.report.run_results import OUT_OF_FOLD, RunResults
from melanoma_dist.metrics.isic_scores import NONE_OF_THESE, UNDECIDED, UNKNOWN, classes_of, decided
from melanoma_dist.pages.numbers import number
from melanoma_dist.pages.svg import PageFigure
from melanoma_dist.pages.tables import Cell, Table, plain

_LEVELS = (0.50, 0.60, 0.70, 0.80, 0.82, 0.89, 0.90, 0.95)
_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def label_figures(results: RunResults) -> Iterator[PageFigure]:
    """Yield the figures of every label, of the leading evaluation or, without one, out of fold."""
    lead, labels = results.leading(), results.summary.labels
    table, where = (results.table, OUT_OF_FOLD) if lead is None else (lead.table, lead.title)
    sets = [images for label in labels if (images := scored_images(label, table, label)) is not None]
    if len(labels) > 1:
        yield _roc(labels, sets, where)
        yield _confusion(labels, table, where)
    if sets:
        yield _histograms(sets, where, "raw" if lead is None else "calibrated")


def levels_table(
    caption: str, name: str, sets: Sequence[ScoredImages], value: Callable[[ScoredImages, float], float]
) -> Table:
    """Return a metric of each set at fixed levels of another one, which ``name`` names."""
    rows = [[Cell(f"{level:.2f}"), *(Cell(number(value(each, level))) for each in sets)] for level in _LEVELS]
    return Table(caption, [name, *(each.name for each in sets)], rows)


def _roc(labels: tuple[str, ...], sets: list[ScoredImages], where: str) -> PageFigure:
    title = f"ROC of every label, {where}"
    missing = [label for label in labels if label not in {each.name for each in sets}]
    caption = f"{len(sets)} labels" + (f"; not defined: {', '.join(missing)}" if missing else "")
    rows = levels_table("Specificity of every label at fixed sensitivities", "sensitivity", sets, specificity_at)
    return PageFigure("roc_labels", title, plots.roc_plot(sets), f"{title}: {caption}", caption + ".", rows)


def _confusion(labels: tuple[str, ...], table: pd.DataFrame, where: str) -> PageFigure:
    """Count images by class and by the label of the highest probability, by the rules of ``multiclass_accuracy``."""
    truth, probability = arrays(table, labels)
    actual, predicted = classes_of(truth), decided(probability)
    names = dict(enumerate(labels))
    rows = names | ({NONE_OF_THESE: "none of these"} if (actual == NONE_OF_THESE).any() else {})
    columns = names | ({UNDECIDED: "undecided"} if (predicted == UNDECIDED).any() else {})
    counts = np.array([[np.sum((actual == row) & (predicted == column)) for column in columns] for row in rows])
    # No label can name an image that has none of them, so its row counts neither as right nor as wrong.
    labelled, unknown = counts[: len(labels)], int((actual == UNKNOWN).sum())
    right, total = int(np.trace(labelled)), int(labelled.sum())
    title = f"Confusion of all labels, {where}"
    key = f"the highest probability names the class of {right:,} of the {total:,} images that have one of the labels"
    caption = (
        f"{key}. Rows are the only label that an image has, columns the label of the highest probability, whatever the "
        "thresholds: the rule of the challenges of 2018 and 2019. Colours are shares of a row."
    )
    if NONE_OF_THESE in rows:
        caption += " The count leaves out the last row: images that have none of the labels."
    caption += f" {unknown:,} images whose class is unknown are left out." if unknown else ""
    cells = [[plain(name), *map(plain, row.tolist())] for name, row in zip(rows.values(), counts, strict=True)]
    figure = plots.matrix_plot(counts, list(rows.values()), list(columns.values()))
    numbers = Table(f"Images by class and highest probability, {where}", ["", *columns.values()], cells)
    return PageFigure("confusion_labels", title, figure, f"{title}: {key}", caption, numbers)


def _histograms(sets: list[ScoredImages], where: str, kind: str) -> PageFigure:
    rows, medians = [], []
    for images in sets:
        parts = {"with it": images.probability[images.truth == 1], "without it": images.probability[images.truth == 0]}
        for name, values in parts.items():
            quantiles = (Cell(number(value)) for value in np.quantile(values, _QUANTILES).tolist())
            rows.append([plain(f"{images.name}, images {name}"), plain(len(values)), *quantiles])
        medians.append(f"{images.name} {np.median(parts['with it']):.2f}, others {np.median(parts['without it']):.2f}")
    header = ["", "images", *(f"{share:.0%} quantile" for share in _QUANTILES)]
    table = Table(f"Quantiles of {kind} probabilities, {where}", header, rows)
    title = f"Histogram of {kind} probabilities, {where}"
    alt = f"{title}; medians: {'; '.join(medians)}"
    caption = "Share of the images with a label (blue) and without it (grey) by the label's probability."
    return PageFigure("histograms", title, plots.histogram_plot(sets), alt, caption, table)

"""Curves of one label: ROC, precision-recall, reliability, net benefit. Each plot is a function of plain numbers."""

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
from melanoma_dist.pages.svg import GREY, INK, SERIES, plot

Floats = npt.NDArray[np.floating[Any]]
_SIDE = 3.9  # inches: at 96 pixels an inch it fits a phone without being made smaller
_MOST_POINTS = 400  # of a drawn curve


class Scored(NamedTuple):
    """The known answers of one label: truth (1, 0) and probability [n], some of either truth."""

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


def scored(name: str, table: pd.DataFrame, label: str) -> Scored | None:
    """A label's answers of a table of predictions; None unless some are known to have it and some not to."""
    known = table[table[label + TRUE].notna()]
    truth = known[label + TRUE].to_numpy(dtype=np.float64)
    if not truth.any() or truth.all():
        return None
    return Scored(name, truth, known[label].to_numpy(dtype=np.float64))


def specificity_at(answers: Scored, sensitivity: float) -> float:
    """The highest specificity of a threshold that reaches a sensitivity."""
    false, true, _ = roc_curve(answers.truth, answers.probability, drop_intermediate=False)
    return float(1 - false[np.argmax(true >= sensitivity - 1e-12)])


def precision_at(answers: Scored, recall: float) -> float:
    """The highest precision of a threshold that reaches a recall."""
    precision, reached, _ = precision_recall_curve(answers.truth, answers.probability)
    return float(precision[reached >= recall - 1e-12].max())


def roc_plot(sets: Sequence[Scored], folds: Sequence[Scored] = (), marks: Sequence[Mark] = ()) -> Figure:
    """ROC curves: each fold thin and grey, the sets thick, marked points as letters."""
    figure, axes = _square("1 - specificity", "sensitivity")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    for fold in folds:
        false, true, _ = roc_curve(fold.truth, fold.probability)
        axes.plot(*_thinned(false, true), color="#bbbbbb", linewidth=0.7)
    for answers, colour in zip(sets, _colours(len(sets)), strict=True):
        false, true, _ = roc_curve(answers.truth, answers.probability)
        axes.plot(*_thinned(false, true), color=colour, linewidth=1.6, label=answers.name)
    if folds:
        axes.plot([], [], color="#bbbbbb", linewidth=0.7, label="each fold")
    for mark in marks:
        at = (1 - mark.specificity, mark.sensitivity)
        axes.plot(*at, "o", color=SERIES[mark.series % len(SERIES)], markersize=8, markeredgecolor="white")
        axes.text(*at, mark.letter, color="white", fontsize=6, ha="center", va="center_baseline", weight="bold")
    _legend(axes, "lower right")
    return figure


def precision_recall_plot(sets: Sequence[Scored]) -> Figure:
    """Precision against recall; dotted the share of positives, which a coin reaches."""
    figure, axes = _square("recall (sensitivity)", "precision")
    for answers, colour in zip(sets, _colours(len(sets)), strict=True):
        precision, recall, _ = precision_recall_curve(answers.truth, answers.probability)
        axes.plot(*_thinned(recall, precision), color=colour, linewidth=1.6, label=answers.name)
        axes.axhline(float(answers.truth.mean()), color=colour, linewidth=0.8, linestyle=":")
    _legend(axes, "best")
    return figure


def reliability_plot(diagrams: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Share of positives against mean probability, for reliability diagrams by name; larger dots hold more images."""
    figure, axes = _square("mean probability of a bin", "share that has it")
    axes.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=":")
    colours = [GREY, *_colours(max(len(diagrams) - 1, 0))]
    for (name, diagram), colour in zip(diagrams.items(), colours, strict=False):
        images = np.asarray(diagram["images"], dtype=np.float64)
        share = images / images.sum() if len(images) else images
        axes.plot(diagram["predicted"], diagram["observed"], color=colour, linewidth=1.2, label=name)
        axes.scatter(diagram["predicted"], diagram["observed"], s=6 + 90 * share, color=colour)
    _legend(axes, "best")
    return figure


def decision_plot(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    """Net benefit against the threshold, by name, beside calling all and calling none."""
    figure, axes = plot(_SIDE, 3.2)
    axes.axhline(0, color=INK, linewidth=0.8, label="call none")
    top = 0.0
    for (name, curve), colour in zip(curves.items(), _colours(len(curves)), strict=True):
        axes.plot(curve["thresholds"], curve["call_all"], color=colour, linewidth=0.9, linestyle=":")
        axes.plot(curve["thresholds"], curve["model"], color=colour, linewidth=1.6, label=name)
        top = max(top, *curve["model"], *curve["call_all"])
    axes.plot([], [], color=GREY, linewidth=0.9, linestyle=":", label="call all")
    axes.set_ylim(-0.25 * top - 0.01, 1.1 * top + 0.01)
    axes.set_xlabel("threshold probability")
    axes.set_ylabel("net benefit")
    _legend(axes, "best")
    return figure


def _square(x: str, y: str) -> tuple[Figure, Axes]:
    figure, axes = plot(_SIDE, _SIDE)
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.02)
    axes.set_aspect("equal")
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    return figure, axes


def _thinned(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    """At most so many points, evenly chosen, the ends among them: more cannot be seen."""
    kept = np.unique(np.linspace(0, len(x) - 1, min(len(x), _MOST_POINTS)).astype(int))
    return x[kept], y[kept]


def _colours(count: int) -> list[str]:
    return [SERIES[at % len(SERIES)] for at in range(count)]


def _legend(axes: Axes, place: Literal["lower right", "best"]) -> None:
    axes.legend(loc=place, frameon=True, framealpha=0.85, edgecolor="none", fontsize=8)

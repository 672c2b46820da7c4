"""Draw a sweep: its score against cost and epochs, the effect of each field, importances, parallel coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from melanoma_dist.pages.svg import BLUE, GREY, INK, ORANGE, RED, plot, style
from melanoma_dist.sweep.domains import Scale
from melanoma_dist.sweep.journal import EpochFinished, Record
from melanoma_dist.sweep.leaderboard import Entry
from melanoma_dist.sweep.ledger import Milestone

_COLOURS = {"complete": BLUE, "dropped": ORANGE, "stopped": GREY, "waiting": GREY, "failed": RED}
_UNFINISHED = "#cccccc"
_INACTIVE = -0.14  # below an axis of parallel coordinates, which spans 0 to 1


def cost_plot(first: list[Milestone], complete: list[Milestone], spent: float, device: str, metric: str) -> Figure:
    """Plot the best score so far, of a first fold and of a mean over all folds, against the device-hours spent."""
    figure, axes = plot(6.4, 3.4)
    for line, label, colour in ((first, "best first fold", GREY), (complete, "best mean over folds", BLUE)):
        if line:
            hours, scores = [point.device_seconds / 3600 for point in line], [point.score for point in line]
            axes.step([*hours, spent / 3600], [*scores, scores[-1]], where="post", label=label, color=colour)
            axes.plot(hours, scores, ".", color=colour)
    axes.set_xlabel(f"{device}-hours spent")
    axes.set_ylabel(metric)
    if first or complete:
        axes.legend(frameon=False)
    return figure


def curves_plot(records: Sequence[Record], entries: list[Entry], metric: str) -> Figure:
    """Plot the best score so far of every first fold by epoch, coloured by the state of its configuration."""
    figure, axes = plot(6.4, 3.4)
    curves: dict[int, tuple[list[int], list[float]]] = {}
    for record in records:
        if isinstance(record, EpochFinished) and record.fold == 0:
            epochs, scores = curves.setdefault(record.configuration, ([], []))
            epochs.append(record.epoch)
            scores.append(record.best_score)
    states = {entry.configuration: entry.state for entry in entries}
    for configuration, (epochs, scores) in curves.items():
        colour = _COLOURS.get(states[configuration], _UNFINISHED)
        axes.plot(epochs, scores, color=colour, linewidth=1, marker=".", markersize=3)
    for state, colour in _COLOURS.items():
        if state in states.values():
            axes.plot([], [], color=colour, label=state)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch of the first fold")
    axes.set_ylabel(f"best {metric} so far")
    if curves:
        axes.legend(frameon=False)
    return figure


def paths_plot(paths: Mapping[str, Sequence[Sequence[Any]]], scales: Mapping[str, Scale]) -> Figure:
    """Plot the values of each field by epoch, a line for each configuration, the best first."""
    figure = Figure(figsize=(6.4, 2.2 * len(paths)), layout="constrained")
    for at, (key, lines) in enumerate(paths.items()):
        axes = figure.add_subplot(len(paths), 1, at + 1)
        style(axes)
        for line in reversed(lines):
            epochs = range(1, len(line) + 1)
            axes.step(epochs, line, where="post", color=BLUE if line is lines[0] else _UNFINISHED, linewidth=1.5)
        if key in scales and scales[key].log:
            axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel(key)
    figure.axes[-1].set_xlabel("epoch")
    return figure


def effects_plot(entries: list[Entry], scales: Mapping[str, Scale], score: str) -> Figure:
    """Plot the mean score of every configuration against each of its values."""
    columns = min(3, len(scales))
    rows = -(-len(scales) // columns)
    figure = Figure(figsize=(3.1 * columns, 2.6 * rows), layout="constrained")
    for at, (key, scale) in enumerate(scales.items()):
        axes = figure.add_subplot(rows, columns, at + 1)
        style(axes)
        plotted = [entry for entry in entries if key in entry.values and entry.mean_score is not None]
        colours = [_COLOURS.get(entry.state, _UNFINISHED) for entry in plotted]
        positions = [scale.position(entry.values[key]) for entry in plotted]
        axes.scatter(positions, [entry.mean_score or 0.0 for entry in plotted], c=colours, s=18)
        _scale_axis(axes, scale)
        axes.set_xlabel(key)
        axes.set_ylabel(f"mean {score}" if at % columns == 0 else "")
    return figure


def _scale_axis(axes: Axes, scale: Scale) -> None:
    if scale.choices:
        axes.set_xticks(range(len(scale.choices)), [str(choice) for choice in scale.choices], rotation=30, ha="right")
        axes.set_xlim(-0.5, len(scale.choices) - 0.5)
    elif scale.log:
        axes.set_xscale("log")


def importance_plot(importances: Mapping[str, float], score: str) -> Figure:
    """Plot the importance of each field as a bar, the largest on top."""
    figure, axes = plot(6.4, 0.8 + 0.3 * len(importances))
    axes.barh(range(len(importances)), list(importances.values()), color=BLUE)
    axes.set_yticks(range(len(importances)), list(importances))
    axes.invert_yaxis()
    axes.set_xlabel(f"share of the variance of the {score}")
    return figure


def parallel_plot(entries: list[Entry], scales: Mapping[str, Scale], name: str) -> Figure:
    """Plot each configuration as a line through its values and its score ``name``, the darker the higher its score."""
    scored = sorted(
        (entry for entry in entries if entry.mean_score is not None), key=lambda entry: entry.mean_score or 0.0
    )
    scores = [entry.mean_score or 0.0 for entry in scored]
    spread = (max(scores) - min(scores)) or 1.0
    figure = Figure(figsize=(max(6.4, 1.05 * (len(scales) + 1)), 3.8), layout="constrained")
    axes = figure.add_subplot()
    for entry, score in zip(scored, scores, strict=True):
        height = (score - min(scores)) / spread
        heights = [_height(entry, key, scale) for key, scale in scales.items()]
        colour = colormaps["viridis_r"](height)
        axes.plot([*heights, height], color=colour, linewidth=2.4 if entry is scored[-1] else 1, alpha=0.85)
    for at, scale in enumerate(scales.values()):
        _parallel_axis(axes, at, _ticks(scale))
    _parallel_axis(axes, len(scales), [(0, f"{min(scores):.3f}"), (1, f"{max(scores):.3f}")])
    names = [*(key.replace(".", ".\n") for key in scales), f"mean {name}"]
    axes.set_xticks(range(len(names)), names, fontsize=8)
    axes.set_yticks([])
    axes.set_xlim(-0.35, len(names) - 0.35)
    axes.set_ylim(_INACTIVE - 0.08, 1.08)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def _height(entry: Entry, key: str, scale: Scale) -> float:
    return float(scale.fraction(entry.values[key])) if key in entry.values else _INACTIVE


def _ticks(scale: Scale) -> list[tuple[float, str]]:
    if scale.choices:
        return [(scale.fraction(choice), str(choice)) for choice in scale.choices]
    values = np.geomspace(*scale.bounds, 3) if scale.log else np.linspace(*scale.bounds, 3)
    return [(scale.fraction(value), f"{value:.2g}") for value in values.tolist()]


def _parallel_axis(axes: Axes, at: int, ticks: list[tuple[float, str]]) -> None:
    axes.plot([at, at], [0, 1], color=INK, linewidth=0.8)
    for height, text in ticks:
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 0.8}
        axes.text(at + 0.04, height, text, fontsize=7, va="center", bbox=box)

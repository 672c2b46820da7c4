"""Plots of a sweep's page: AUC against cost, first folds by epoch, the effect of each searched field."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from melanoma_dist.pages.svg import BLUE, GREY, ORANGE, RED, plot, style
from melanoma_dist.sweep.leaderboard import Entry
from melanoma_dist.sweep.ledger import Milestone
from melanoma_dist.sweep.records import EpochFinished, Record

_COLOURS = {"complete": BLUE, "dropped": ORANGE, "stopped": GREY, "failed": RED}
_UNFINISHED = "#cccccc"
_LOG_RANGE = 30.0  # values that span more than this factor are drawn on a logarithmic axis


def cost_plot(first: list[Milestone], complete: list[Milestone], spent: float, device: str) -> Figure:
    """Plot the best AUC so far, of a first fold and of a mean over all folds, against the device-hours spent."""
    figure, axes = plot(6.4, 3.4)
    for line, label, colour in ((first, "best first fold", GREY), (complete, "best mean over folds", BLUE)):
        if line:
            hours, aucs = [point.device_seconds / 3600 for point in line], [point.auc for point in line]
            axes.step([*hours, spent / 3600], [*aucs, aucs[-1]], where="post", label=label, color=colour)
            axes.plot(hours, aucs, ".", color=colour)
    axes.set_xlabel(f"{device}-hours spent")
    axes.set_ylabel("melanoma AUC")
    if first or complete:
        axes.legend(frameon=False)
    return figure


def curves_plot(records: Sequence[Record], entries: list[Entry]) -> Figure:
    """Plot the best AUC so far of every first fold by epoch, coloured by the state of its configuration."""
    figure, axes = plot(6.4, 3.4)
    curves: dict[int, tuple[list[int], list[float]]] = {}
    for record in records:
        if isinstance(record, EpochFinished) and record.fold == 0:
            epochs, aucs = curves.setdefault(record.configuration, ([], []))
            epochs.append(record.epoch)
            aucs.append(record.best_auc)
    states = {entry.configuration: entry.state for entry in entries}
    for number, (epochs, aucs) in curves.items():
        colour = _COLOURS.get(states[number], _UNFINISHED)
        axes.plot(epochs, aucs, color=colour, linewidth=1, marker=".", markersize=3)
    for state, colour in _COLOURS.items():
        if state in states.values():
            axes.plot([], [], color=colour, label=state)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch of the first fold")
    axes.set_ylabel("best melanoma AUC so far")
    if curves:
        axes.legend(frameon=False)
    return figure


def effects_plot(entries: list[Entry], keys: list[str]) -> Figure:
    """Plot the mean AUC of every configuration against each of its values."""
    columns = min(3, len(keys))
    rows = -(-len(keys) // columns)
    figure = Figure(figsize=(3.1 * columns, 2.6 * rows), layout="constrained")
    for position, key in enumerate(keys):
        axes = figure.add_subplot(rows, columns, position + 1)
        style(axes)
        plotted = [entry for entry in entries if entry.values.get(key) is not None and entry.mean_auc is not None]
        _scatter(axes, plotted, key)
        axes.set_xlabel(key)
        axes.set_ylabel("mean AUC" if position % columns == 0 else "")
    return figure


def _scatter(axes: Axes, entries: list[Entry], key: str) -> None:
    values = [entry.values[key] for entry in entries]
    numbers = [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if not values or len(numbers) < len(values):
        names = sorted({str(value) for value in values})
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
        numbers = [names.index(str(value)) for value in values]
    elif min(numbers) > 0 and max(numbers) / min(numbers) > _LOG_RANGE:
        axes.set_xscale("log")
    colours = [_COLOURS.get(entry.state, _UNFINISHED) for entry in entries]
    axes.scatter(numbers, [entry.mean_auc for entry in entries if entry.mean_auc is not None], c=colours, s=18)

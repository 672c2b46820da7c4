"""The plots of a sweep's page: AUC against cost, first folds by epoch, the effect of each hyperparameter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from melanoma_dist.pages.svg import BLUE, GREY, ORANGE, RED, plot, style
from melanoma_dist.sweep.journal import Record
from melanoma_dist.sweep.ledger import Milestone

_COLOURS = {"complete": BLUE, "dropped": ORANGE, "stopped": GREY, "failed": RED}
_UNFINISHED = "#cccccc"
_LOG_RANGE = 30.0  # values that span more than this factor are drawn on a logarithmic axis


def cost_plot(first: list[Milestone], whole: list[Milestone], spent: float, device: str) -> Figure:
    """The highest AUC so far against the device-hours spent: of a first fold, and of a mean over all folds."""
    figure, axes = plot(6.4, 3.4)
    for found, label, colour in ((first, "best first fold", GREY), (whole, "best mean over folds", BLUE)):
        if found:
            hours = [stone.device_seconds / 3600 for stone in found] + [spent / 3600]
            axes.step(hours, [stone.auc for stone in found] + [found[-1].auc], where="post", label=label, color=colour)
            axes.plot(hours[:-1], [stone.auc for stone in found], ".", color=colour)
    axes.set_xlabel(f"{device}-hours spent")
    axes.set_ylabel("melanoma AUC")
    if first or whole:
        axes.legend(frameon=False)
    return figure


def curves_plot(records: Sequence[Record], table: pd.DataFrame) -> Figure:
    """Best AUC by epoch of every first fold, coloured by what became of its configuration."""
    figure, axes = plot(6.4, 3.4)
    curves: dict[int, tuple[list[int], list[float]]] = {}
    for record in records:
        if record["what"] == "epoch" and record["fold"] == 0:
            epochs, aucs = curves.setdefault(record["configuration"], ([], []))
            epochs.append(record["epoch"])
            aucs.append(record["best_auc"])
    for number, (epochs, aucs) in curves.items():
        colour = _COLOURS.get(str(table.loc[number, "state"]), _UNFINISHED)
        axes.plot(epochs, aucs, color=colour, linewidth=1, marker=".", markersize=3)
    for state, colour in _COLOURS.items():
        if (table["state"] == state).any():
            axes.plot([], [], color=colour, label=state)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel("epoch of the first fold")
    axes.set_ylabel("best melanoma AUC so far")
    if curves:
        axes.legend(frameon=False)
    return figure


def effects_plot(table: pd.DataFrame, keys: list[str]) -> Figure:
    """Mean AUC of every configuration against each of its values."""
    columns = min(3, len(keys))
    rows = -(-len(keys) // columns)
    figure = Figure(figsize=(3.1 * columns, 2.6 * rows), layout="constrained")
    for position, key in enumerate(keys):
        axes = figure.add_subplot(rows, columns, position + 1)
        style(axes)
        known = table[table[key].notna() & table["mean_auc"].notna()]
        _scatter(axes, known, key)
        axes.set_xlabel(key)
        axes.set_ylabel("mean AUC" if position % columns == 0 else "")
    return figure


def _scatter(axes: Axes, known: pd.DataFrame, key: str) -> None:
    values: list[Any] = known[key].tolist()
    numeric = bool(values) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if not numeric:
        names = sorted({str(value) for value in values})
        axes.set_xticks(range(len(names)), names, rotation=30, ha="right")
        values = [names.index(str(value)) for value in values]
    elif min(values) > 0 and max(values) / min(values) > _LOG_RANGE:
        axes.set_xscale("log")
    colours = [_COLOURS.get(str(state), _UNFINISHED) for state in known["state"]]
    axes.scatter(values, known["mean_auc"].tolist(), c=colours, s=18)

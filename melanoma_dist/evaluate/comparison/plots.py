"""The plots of a comparison, as SVG: AUCs with intervals, differences of pairs, quality against cost.

They are narrow, because a phone shows them too, and their text must stay legible there.
"""

from __future__ import annotations

import io
import re
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from melanoma_dist.data.folds import HEADLINE

_WIDTH = 4.8  # inches
_INK, _RUN, _SEPARATED, _OPEN = "#1b1b1b", "#0072b2", "#d55e00", "#767676"  # Okabe and Ito


def auc_plot(comparison: dict[str, Any]) -> str | None:
    """The headline AUC of each run with its 95 % interval, the folds as small dots; None where none is defined."""
    runs = _with_auc(comparison)
    if not runs:
        return None
    figure, axes = _rows([run["name"] for run in runs])
    for row, run in enumerate(runs):
        found = run["figures"][HEADLINE]["auc"]
        folds = [auc for auc in (run["folds"] or {}).values() if auc is not None]
        axes.plot(folds, [row + 0.22] * len(folds), "o", color=_OPEN, markersize=3)
        axes.plot([found["low"], found["high"]], [row, row], color=_RUN, linewidth=2)
        axes.plot([found["estimate"]], [row], "o", color=_RUN, markersize=7)
    axes.set_xlabel(comparison["headline"])
    return _svg(figure, "aucs")


def difference_plot(comparison: dict[str, Any]) -> str | None:
    """The difference of the headline AUC of each pair with its simultaneous interval, and no difference as a line."""
    pairs = [pair for pair in comparison["pairs"] if "not_defined" not in pair["simultaneous"]]
    if not pairs:
        return None
    figure, axes = _rows([f"{pair['first']}\nless {pair['second']}" for pair in pairs])
    axes.axvline(0, color=_INK, linewidth=1)
    for row, pair in enumerate(pairs):
        found, colour = pair["simultaneous"], _SEPARATED if pair["separated"] else _OPEN
        axes.plot([found["low"], found["high"]], [row, row], color=colour, linewidth=2)
        axes.plot([found["estimate"]], [row], "D" if pair["separated"] else "o", color=colour, markersize=7)
        if "not_defined" not in pair["folds"]:
            axes.plot([pair["folds"]["low"], pair["folds"]["high"]], [row + 0.25] * 2, color=_INK, linewidth=1,
                      linestyle=":")  # fmt: skip
    axes.set_xlabel(f"difference of {comparison['headline']}")
    return _svg(figure, "differences")


def cost_plot(comparison: dict[str, Any]) -> str | None:
    """The headline AUC with its interval against device-hours; None unless all runs tell hours of the same device."""
    runs = _with_auc(comparison)
    devices = {run["cost"]["device"] for run in comparison["runs"]}
    if not runs or len(devices) > 1 or any(not run["cost"]["device_hours"] for run in runs):
        return None
    figure = Figure(figsize=(_WIDTH, 3.2), layout="constrained")
    axes = figure.add_subplot()
    _style(axes)
    ranked = sorted(runs, key=lambda run: float(run["figures"][HEADLINE]["auc"]["estimate"]))
    for rank, run in enumerate(ranked):  # names stand right and left in turn: neighbours in AUC do not meet
        found, hours = run["figures"][HEADLINE]["auc"], run["cost"]["device_hours"]
        axes.plot([hours, hours], [found["low"], found["high"]], color=_RUN, linewidth=2)
        axes.plot([hours], [found["estimate"]], "o", color=_RUN, markersize=7)
        side = -1 if rank % 2 else 1
        axes.annotate(run["name"], (hours, found["estimate"]), xytext=(8 * side, 0), textcoords="offset points",
                      ha="right" if side < 0 else "left", va="center")  # fmt: skip
    axes.set_xlim(0, 1.6 * max(run["cost"]["device_hours"] for run in runs))
    axes.set_xlabel(f"{devices.pop() or 'device'}-hours of all folds")
    axes.set_ylabel(comparison["headline"])
    return _svg(figure, "cost")


def _with_auc(comparison: dict[str, Any]) -> list[dict[str, Any]]:
    return [run for run in comparison["runs"] if "not_defined" not in run["figures"][HEADLINE]["auc"]]


def _rows(names: list[str]) -> tuple[Figure, Axes]:
    """A plot of a row per name, the first one on top."""
    figure = Figure(figsize=(_WIDTH, 0.9 + 0.55 * len(names)), layout="constrained")
    axes = figure.add_subplot()
    _style(axes)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure, axes


def _style(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#eeeeee")
    axes.set_axisbelow(True)


def _svg(figure: Figure, name: str) -> str:
    """An ``<svg>`` element with text as text; its ids begin with ``name``, so that no other plot of a page has them."""
    text = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "melanoma-dist", "font.size": 10}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    content = text.getvalue()
    return re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", content[content.index("<svg") :])

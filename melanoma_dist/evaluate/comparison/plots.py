"""The plots of a comparison: AUCs with intervals, differences of pairs, quality against cost.

They are narrow, because a phone shows them too, and their text must stay legible there.
"""

from __future__ import annotations

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from melanoma_dist.evaluate.comparison.records import Comparison, Estimate, NotDefined, RunRecord
from melanoma_dist.pages.svg import BLUE, GREY, INK, RED, PageFigure, plot

_WIDTH = 4.8  # inches
_RUN, _SEPARATED, _OPEN = BLUE, RED, GREY


def auc_plot(comparison: Comparison) -> PageFigure | None:
    """The headline AUC of each run with its 95 % interval, the folds as small dots; None where none is defined."""
    runs = _with_auc(comparison)
    if not runs:
        return None
    figure, axes = _rows([run.name for run, _ in runs])
    for row, (run, auc) in enumerate(runs):
        folds = [fold for fold in (run.folds or {}).values() if fold is not None]
        axes.plot(folds, [row + 0.22] * len(folds), "o", color=_OPEN, markersize=3)
        axes.plot([auc.low, auc.high], [row, row], color=_RUN, linewidth=2)
        axes.plot([auc.estimate], [row], "o", color=_RUN, markersize=7)
    axes.set_xlabel(comparison.headline)
    by_fold = any(run.folds for run in comparison.runs)
    headline = comparison.headline
    alt = f"{headline} of each run with its 95 % interval; the numbers are in the table above"
    caption = f"{headline} with its 95 % interval over {comparison.groups}." + " Small dots are the folds." * by_fold
    alt += " and in the table by fold" * by_fold
    return PageFigure("aucs", headline, figure, alt, caption)


def difference_plot(comparison: Comparison) -> PageFigure | None:
    """The difference of the headline AUC of each pair with its simultaneous interval, and no difference as a line."""
    pairs = [(pair, pair.simultaneous) for pair in comparison.pairs if isinstance(pair.simultaneous, Estimate)]
    if not pairs:
        return None
    figure, axes = _rows([f"{pair.first}\nless {pair.second}" for pair, _ in pairs])
    axes.axvline(0, color=INK, linewidth=1)
    for row, (pair, difference) in enumerate(pairs):
        colour = _SEPARATED if pair.separated else _OPEN
        axes.plot([difference.low, difference.high], [row, row], color=colour, linewidth=2)
        axes.plot([difference.estimate], [row], "D" if pair.separated else "o", color=colour, markersize=7)
        if not isinstance(pair.folds, NotDefined):
            axes.plot([pair.folds.low, pair.folds.high], [row + 0.25] * 2, color=INK, linewidth=1,
                      linestyle=":")  # fmt: skip
    axes.set_xlabel(f"difference of {comparison.headline}")
    simultaneous = "simultaneous " if len(comparison.pairs) > 1 else ""
    over_folds = "; dotted: the interval over folds" if any(run.folds for run in comparison.runs) else ""
    title = f"Differences of {comparison.headline}"
    alt = f"{title} of each pair with intervals; the numbers are in the table of pairs below"
    caption = (
        f"Difference of each pair with its {simultaneous}95 % interval over {comparison.groups}; orange with a "
        f"diamond: separated{over_folds}."
    )
    return PageFigure("differences", title, figure, alt, caption)


def cost_plot(comparison: Comparison) -> PageFigure | None:
    """The headline AUC with its interval against device-hours; None unless all runs have hours of the same device."""
    runs = _with_auc(comparison)
    devices = {run.cost.device for run in comparison.runs}
    points = [(run.name, run.cost.device_hours, auc) for run, auc in runs if run.cost.device_hours]
    if not runs or len(devices) > 1 or len(points) < len(runs):
        return None
    figure, axes = plot(_WIDTH, 3.2)
    points.sort(key=lambda point: point[2].estimate)
    for rank, (name, hours, auc) in enumerate(points):  # names alternate sides, so that neighbours in AUC do not meet
        axes.plot([hours, hours], [auc.low, auc.high], color=_RUN, linewidth=2)
        axes.plot([hours], [auc.estimate], "o", color=_RUN, markersize=7)
        side = -1 if rank % 2 else 1
        axes.annotate(name, (hours, auc.estimate), xytext=(8 * side, 0), textcoords="offset points",
                      ha="right" if side < 0 else "left", va="center")  # fmt: skip
    axes.set_xlim(0, 1.6 * max(hours for _, hours, _ in points))
    axes.set_xlabel(f"{devices.pop() or 'device'}-hours of all folds")
    axes.set_ylabel(comparison.headline)
    headline = comparison.headline
    alt = f"{headline} against the hours of each run; the numbers are in the table above"
    caption = f"{headline} with its 95 % interval against the hours of all folds."
    return PageFigure("cost", f"{headline} against cost", figure, alt, caption)


def _with_auc(comparison: Comparison) -> list[tuple[RunRecord, Estimate]]:
    aucs = [(run, run.metrics[comparison.label]["auc"]) for run in comparison.runs]
    return [(run, auc) for run, auc in aucs if isinstance(auc, Estimate)]


def _rows(names: list[str]) -> tuple[Figure, Axes]:
    """A plot of a row per name, the first one on top."""
    figure, axes = plot(_WIDTH, 0.9 + 0.55 * len(names))
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0)
    return figure, axes

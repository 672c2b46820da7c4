"""Write ``sweep.html``: the leaderboard, plots and ledger of a sweep as one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from melanoma_dist.pages.environment import render
from melanoma_dist.pages.numbers import UNDEFINED, number
from melanoma_dist.pages.svg import BLUE, GREY, ORANGE, RED, PageFigure, plot, style
from melanoma_dist.pages.tables import Cell, Table, plain
from melanoma_dist.storage import atomic
from melanoma_dist.sweep.journal import EpochFinished, Record
from melanoma_dist.sweep.leaderboard import Entry, searched_fields
from melanoma_dist.sweep.ledger import Ledger, Milestone, milestones
from melanoma_dist.sweep.work_source import SweepContext

_COLOURS = {"complete": BLUE, "dropped": ORANGE, "stopped": GREY, "failed": RED}
_UNFINISHED = "#cccccc"
_LOG_RANGE = 30.0  # values that span more than this factor are drawn on a logarithmic axis


def write_page(
    context: SweepContext,
    records: Sequence[Record],
    ledger: Ledger,
    entries: list[Entry],
    conclusions: list[str],
    cost: str,
) -> None:
    """Write the page, whole or not at all."""
    keys = searched_fields(entries)
    first, complete = milestones(records, context.config.data.folds)
    text = render(
        "sweep/page.html.j2",
        name=context.folder.name,
        synthetic=context.dataset.synthetic,
        conclusions=conclusions,
        cost=cost,
        folds=context.config.data.folds,
        leaderboard=_leaderboard(entries, keys, ledger.device),
        plots=_plots(records, ledger, entries, keys, first, complete),
        milestones=_milestones(first, complete, ledger.device),
        ledger=_ledger(ledger),
        space=(context.folder / "space.py").read_text(),
        record=(context.folder / "sweep.json").read_text(),
    )
    atomic.write_text(context.folder / "sweep.html", text)


def _plots(
    records: Sequence[Record], ledger: Ledger, entries: list[Entry], keys: list[str],
    first: list[Milestone], complete: list[Milestone],
) -> list[PageFigure]:  # fmt: skip
    if not entries:
        return []
    plots = [
        (
            "AUC against cost",
            "The best melanoma AUC so far against the cost spent by then.",
            _cost_plot(first, complete, ledger.spent, ledger.device),
        ),
        ("First folds", "The best AUC so far of every first fold, by epoch.", _curves_plot(records, entries)),
    ]
    if keys:
        caption = "Mean AUC over the finished folds (or of the stopped first fold) against each searched field."
        plots.append(("Effect of each hyperparameter", caption, _effects_plot(entries, keys)))
    return [PageFigure("", title, figure, f"{title}: {caption}", caption) for title, caption, figure in plots]


def _leaderboard(entries: list[Entry], keys: list[str], device: str) -> Table:
    header = ["configuration", "state", "folds", "mean AUC", "sd", "worst fold", "epochs", f"{device}-hours", "reason"]
    rows = [
        [
            *map(plain, (entry.name, entry.state, entry.folds)),
            *(Cell(number(auc, 4)) for auc in (entry.mean_auc, entry.sd_auc, entry.worst_fold_auc)),
            *map(_value, (entry.epochs, entry.device_hours)),
            plain(entry.why, "text"),
            *(_value(entry.values.get(key)) for key in keys),
        ]
        for entry in entries
    ]
    return Table("Configurations, best first", [*header, *keys], rows)


def _milestones(first: list[Milestone], complete: list[Milestone], device: str) -> Table:
    rows = [
        [plain(measured_on), Cell(number(point.auc, 4)), Cell(number(point.device_seconds / 3600)),
         plain(f"c{point.configuration:03d}")]
        for measured_on, line in (("first fold", first), ("mean over folds", complete))
        for point in line
    ]  # fmt: skip
    return Table("New best AUCs", ["measured on", "AUC", f"{device}-hours", "configuration"], rows)


def _ledger(ledger: Ledger) -> Table:
    header = ["configuration", "fold", "state", "epochs", "best AUC", "seconds", "device seconds"]
    rows = [
        [
            *(_value(value) for value in (unit.configuration, unit.fold, unit.state, unit.epochs, unit.best_auc)),
            *(_value(value) for value in (unit.seconds, unit.device_seconds, unit.saved_device_seconds)),
            plain(unit.why, "text"),
        ]
        for unit in ledger.units
    ]
    return Table("Units", [*header, "saved device seconds", "reason"], rows)


def _value(value: object) -> Cell:
    """Return a cell with a searched value or a cost, in four significant digits."""
    if value is None:
        return Cell(UNDEFINED)
    return Cell(f"{value:.4g}" if isinstance(value, float) else str(value))


def _cost_plot(first: list[Milestone], complete: list[Milestone], spent: float, device: str) -> Figure:
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


def _curves_plot(records: Sequence[Record], entries: list[Entry]) -> Figure:
    """Plot the best AUC so far of every first fold by epoch, coloured by the state of its configuration."""
    figure, axes = plot(6.4, 3.4)
    curves: dict[int, tuple[list[int], list[float]]] = {}
    for record in records:
        if isinstance(record, EpochFinished) and record.fold == 0:
            epochs, aucs = curves.setdefault(record.configuration, ([], []))
            epochs.append(record.epoch)
            aucs.append(record.best_auc)
    states = {entry.configuration: entry.state for entry in entries}
    for configuration, (epochs, aucs) in curves.items():
        colour = _COLOURS.get(states[configuration], _UNFINISHED)
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


def _effects_plot(entries: list[Entry], keys: list[str]) -> Figure:
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

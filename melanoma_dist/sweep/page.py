"""Write ``sweep.html``: the leaderboard, plots and ledger of a sweep as one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence

from melanoma_dist.pages.environment import render
from melanoma_dist.pages.numbers import UNDEFINED, number
from melanoma_dist.pages.svg import PageFigure
from melanoma_dist.pages.tables import Cell, Table, plain
from melanoma_dist.storage import atomic
from melanoma_dist.sweep.leaderboard import Entry, searched_fields
from melanoma_dist.sweep.ledger import Ledger, Milestone, milestones
from melanoma_dist.sweep.plots import cost_plot, curves_plot, effects_plot
from melanoma_dist.sweep.records import Record
from melanoma_dist.sweep.work_source import SweepContext


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
            cost_plot(first, complete, ledger.spent, ledger.device),
        ),
        ("First folds", "The best AUC so far of every first fold, by epoch.", curves_plot(records, entries)),
    ]
    if keys:
        caption = "Mean AUC over the finished folds (or of the stopped first fold) against each searched field."
        plots.append(("Effect of each hyperparameter", caption, effects_plot(entries, keys)))
    return [PageFigure("", title, figure, f"{title}: {caption}", caption) for title, caption, figure in plots]


def _leaderboard(entries: list[Entry], keys: list[str], device: str) -> Table:
    header = ["configuration", "state", "folds", "mean AUC", "sd", "worst fold", "epochs", f"{device}-hours", "reason"]
    rows = [
        [
            plain(entry.name),
            plain(entry.state),
            plain(entry.folds),
            *(Cell(number(auc, 4)) for auc in (entry.mean_auc, entry.sd_auc, entry.worst_fold_auc)),
            _value(entry.epochs),
            _value(entry.device_hours),
            plain(entry.why, "text"),
            *(_value(entry.values.get(key)) for key in keys),
        ]
        for entry in entries
    ]
    return Table("Configurations, best first", [*header, *keys], rows)


def _milestones(first: list[Milestone], complete: list[Milestone], device: str) -> Table:
    rows = [
        [
            plain(measured_on),
            Cell(number(point.auc, 4)),
            Cell(number(point.device_seconds / 3600)),
            plain(f"c{point.configuration:03d}"),
        ]
        for measured_on, line in (("first fold", first), ("mean over folds", complete))
        for point in line
    ]
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
    """A searched value or a cost with four significant digits."""
    if value is None:
        return Cell(UNDEFINED)
    return Cell(f"{value:.4g}" if isinstance(value, float) else str(value))

"""Write ``sweep.html``: the leaderboard, plots and ledger of a sweep as one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from melanoma_dist.pages.environment import render
from melanoma_dist.pages.numbers import UNDEFINED, number
from melanoma_dist.pages.svg import PageFigure
from melanoma_dist.pages.tables import Cell, Table, plain
from melanoma_dist.storage import atomic
from melanoma_dist.sweep.journal import Record
from melanoma_dist.sweep.leaderboard import COLUMNS
from melanoma_dist.sweep.ledger import Ledger, Milestone, milestones
from melanoma_dist.sweep.plots import cost_plot, curves_plot, effects_plot
from melanoma_dist.sweep.work_source import SweepContext

_LEDGER = ("configuration", "fold", "state", "epochs", "best_auc", "seconds", "device_seconds", "saved_device_seconds")


def write_page(
    context: SweepContext,
    records: Sequence[Record],
    ledger: Ledger,
    table: pd.DataFrame,
    conclusions: list[str],
    cost: str,
) -> None:
    """Write the page, whole or not at all."""
    keys = [key for key in table.columns if key not in COLUMNS]
    first, whole = milestones(records, context.config.data.folds)
    text = render(
        "sweep/page.html.j2",
        name=context.folder.name,
        synthetic=context.dataset.synthetic,
        conclusions=conclusions,
        cost=cost,
        folds=context.config.data.folds,
        leaderboard=_leaderboard(table, keys, ledger.device),
        plots=_plots(records, ledger, table, keys, first, whole),
        milestones=_milestones(first, whole, ledger.device),
        ledger=_ledger(ledger),
        space=(context.folder / "space.py").read_text(),
        record=(context.folder / "sweep.json").read_text(),
    )
    atomic.write_text(context.folder / "sweep.html", text)


def _plots(
    records: Sequence[Record], ledger: Ledger, table: pd.DataFrame, keys: list[str],
    first: list[Milestone], whole: list[Milestone],
) -> list[PageFigure]:  # fmt: skip
    if table.empty:
        return []
    plots = [
        (
            "AUC against cost",
            "The best melanoma AUC so far against the cost spent by then.",
            cost_plot(first, whole, ledger.spent, ledger.device),
        ),
        ("First folds", "The best AUC so far of every first fold, by epoch.", curves_plot(records, table)),
    ]
    if keys:
        caption = "Mean AUC over the finished folds (or of the stopped first fold) against each searched field."
        plots.append(("Effect of each hyperparameter", caption, effects_plot(table, keys)))
    return [PageFigure("", title, figure, f"{title}: {caption}", caption) for title, caption, figure in plots]


def _leaderboard(table: pd.DataFrame, keys: list[str], device: str) -> Table:
    header = ["configuration", "state", "folds", "mean AUC", "sd", "worst fold", "epochs", f"{device}-hours", "reason"]
    rows = [
        [
            plain(row["name"]),
            plain(row["state"]),
            plain(row["folds"]),
            *(Cell(number(row[key], 4)) for key in ("mean_auc", "sd_auc", "worst_fold_auc")),
            *(_value(row[key]) for key in ("epochs", "device_hours")),
            plain(row["why"], "text"),
            *(_value(row[key]) for key in keys),
        ]
        for _, row in table.iterrows()
    ]
    return Table("Configurations, best first", [*header, *keys], rows)


def _milestones(first: list[Milestone], whole: list[Milestone], device: str) -> Table:
    rows = [
        [
            plain(measured_on),
            Cell(number(stone.auc, 4)),
            Cell(number(stone.device_seconds / 3600)),
            plain(f"c{stone.configuration:03d}"),
        ]
        for measured_on, milestones in (("first fold", first), ("mean over folds", whole))
        for stone in milestones
    ]
    return Table("New best AUCs", ["measured on", "AUC", f"{device}-hours", "configuration"], rows)


def _ledger(ledger: Ledger) -> Table:
    rows = [[*(_value(row[name]) for name in _LEDGER), plain(row["why"], "text")] for _, row in ledger.units.iterrows()]
    return Table("Units", [*(name.replace("_", " ") for name in _LEDGER), "reason"], rows)


def _value(value: Any) -> Cell:
    """A searched value or a cost with four significant digits."""
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return Cell(UNDEFINED)
    return Cell(f"{value:.4g}" if isinstance(value, float) else str(value))

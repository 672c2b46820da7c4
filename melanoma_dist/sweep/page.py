"""Write ``sweep.html``: the leaderboard, plots and ledger of a sweep as one self-contained page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

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
    page = Environment(
        loader=PackageLoader("melanoma_dist.sweep", "."), autoescape=True, undefined=StrictUndefined
    ).get_template("page.html.j2")
    text = page.render(
        name=context.folder.name,
        synthetic=context.dataset.synthetic,
        conclusions=conclusions,
        cost=cost,
        folds=context.config.data.folds,
        device=ledger.device,
        keys=keys,
        rows=[_row(row, keys) for _, row in table.iterrows()],
        plots=_plots(records, ledger, table, keys, first, whole),
        milestones=_milestones("first fold", first) + _milestones("mean over folds", whole),
        ledger_header=[*(name.replace("_", " ") for name in _LEDGER), "reason"],
        ledger=[[_cell(row[name]) for name in (*_LEDGER, "why")] for _, row in ledger.units.iterrows()],
        space=(context.folder / "space.py").read_text(),
        record=(context.folder / "sweep.json").read_text(),
    )
    atomic.write_text(context.folder / "sweep.html", text)


def _plots(
    records: Sequence[Record], ledger: Ledger, table: pd.DataFrame, keys: list[str],
    first: list[Milestone], whole: list[Milestone],
) -> list[tuple[str, str, Markup]]:  # fmt: skip
    if table.empty:
        return []
    cost = cost_plot(first, whole, ledger.spent, ledger.device)
    plots = [
        ("AUC against cost", "The best melanoma AUC so far against the cost spent by then.", cost),
        ("First folds", "The best AUC so far of every first fold, by epoch.", curves_plot(records, table)),
    ]
    if keys:
        caption = "Mean AUC over the finished folds (or of the stopped first fold) against each searched field."
        plots.append(("Effect of each hyperparameter", caption, effects_plot(table, keys)))
    return [(title, text, Markup(svg)) for title, text, svg in plots]  # noqa: S704  # nosec B704  # from numbers


def _row(row: pd.Series[Any], keys: list[str]) -> dict[str, Any]:
    aucs = [_auc(row[key]) for key in ("mean_auc", "sd_auc", "worst_fold_auc")]
    rest = [_cell(row[key]) for key in ("epochs", "device_hours")]
    return {
        "name": row["name"],
        "cells": [row["state"], str(row["folds"]), *aucs, *rest],
        "why": row["why"],
        "varied": [_cell(row[key]) for key in keys],
    }


def _milestones(what: str, found: list[Milestone]) -> list[list[str]]:
    return [
        [what, f"{stone.auc:.4f}", f"{stone.device_seconds / 3600:.3f}", f"c{stone.configuration:03d}"]
        for stone in found
    ]


def _auc(value: float | None) -> str:
    return "–" if value is None or pd.isna(value) else f"{value:.4f}"


def _cell(value: Any) -> str:
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)

"""Who stands where: the leaderboard of a sweep."""

from __future__ import annotations

import statistics
from typing import Any

import pandas as pd

from melanoma_dist.sweep.controller import Controller
from melanoma_dist.sweep.ledger import Ledger

COLUMNS = ("rank", "name", "state", "folds", "mean_auc", "sd_auc", "worst_fold_auc", "epochs", "device_hours", "why")


def leaderboard(conductor: Controller, ledger: Ledger, names: list[str]) -> pd.DataFrame:
    """A row per configuration, indexed by its number, the best first: ``COLUMNS``, then its values.

    Complete configurations come first, by their mean AUC over the folds; then the others, by folds and mean. The AUC of
    one that finished no fold is the best of its unfinished one.
    """
    rows = [_row(number, conductor, ledger, names[number]) for number in range(len(names))]
    table = pd.DataFrame(rows, index=pd.RangeIndex(len(rows), name="configuration"))
    if table.empty:
        return table
    order = table.assign(complete=table["state"] == "complete", failed=table["state"] == "failed")
    order = order.sort_values(
        ["complete", "failed", "folds", "mean_auc"], ascending=[False, True, False, False], kind="stable"
    )
    table = table.loc[order.index]
    table.insert(0, "rank", range(1, len(table) + 1))
    return table


def _row(number: int, conductor: Controller, ledger: Ledger, name: str) -> dict[str, Any]:
    runner = conductor.race.runners[number]
    mine = ledger.units[ledger.units["configuration"] == number]
    aucs = list(runner.aucs.values()) or mine["best_auc"].dropna().tolist()
    return {
        "name": name,
        "state": _state(number, conductor),
        "folds": len(runner.aucs),
        "mean_auc": statistics.fmean(aucs) if aucs else None,
        "sd_auc": statistics.stdev(aucs) if len(aucs) > 1 else None,
        "worst_fold_auc": min(runner.aucs.values(), default=None),
        "epochs": int(mine["epochs"].sum()),
        "device_hours": float(mine["device_seconds"].sum() / 3600),
        "why": runner.out or "",
        **conductor.values[number],
    }


def _state(number: int, conductor: Controller) -> str:
    runner = conductor.race.runners[number]
    if conductor.race.complete(number):
        return "complete"
    if runner.out is None:
        return "unfinished"
    if runner.out.startswith("failed: "):
        return "failed"
    return "dropped" if runner.aucs else "stopped"


def best_and_next(table: pd.DataFrame) -> tuple[int | None, int | None]:
    """The best two complete configurations."""
    complete = [int(number) for number in table.index[table["state"] == "complete"]] if len(table) else []
    first, second, *_ = [*complete, None, None]
    return first, second

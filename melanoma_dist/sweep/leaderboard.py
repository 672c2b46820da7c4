"""The leaderboard of a sweep: its configurations, the best first."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import Literal

import pandas as pd

from melanoma_dist.sweep.controller import Controller
from melanoma_dist.sweep.ledger import Ledger, with_score_names
from melanoma_dist.sweep.racing import FoldTrial
from melanoma_dist.sweep.space import Values

State = Literal["complete", "unfinished", "failed", "dropped", "stopped", "waiting"]


@dataclass(frozen=True)
class Entry:
    """A configuration on the leaderboard."""

    configuration: int
    name: str
    state: State
    folds: int
    """Finished folds."""
    mean_score: float | None
    """Over the finished folds; without one, the best score of the unfinished fold."""
    sd_score: float | None
    worst_fold_score: float | None
    epochs: int
    device_hours: float
    why: str
    """Why it was stopped or dropped, waits or failed."""
    values: Values


def leaderboard(controller: Controller, ledger: Ledger, names: list[str]) -> list[Entry]:
    """An entry per configuration, the best first.

    Complete configurations come first, by their mean score over the folds; then the others, by folds and mean; failed
    ones last.
    """
    entries = [_entry(number, controller, ledger, name) for number, name in enumerate(names)]
    return sorted(entries, key=_rank)


def _rank(entry: Entry) -> tuple[bool, bool, int, bool, float]:
    mean = entry.mean_score
    return entry.state != "complete", entry.state == "failed", -entry.folds, mean is None, -(mean or 0.0)


def searched_fields(entries: list[Entry]) -> list[str]:
    """The dotted fields that any configuration sets."""
    in_order = sorted(entries, key=lambda entry: entry.configuration)
    return list(dict.fromkeys(key for entry in in_order for key in entry.values))


def as_table(entries: list[Entry], score: str) -> pd.DataFrame:
    """The content of ``leaderboard.csv``: a row per entry, indexed by the configuration; its values come last.

    Columns name the ``score``: ``mean_auc``, ``mean_jaccard``.
    """
    keys = searched_fields(entries)
    rows = [
        {"rank": rank, **vars(entry), **{key: entry.values.get(key) for key in keys}}
        for rank, entry in enumerate(entries, 1)
    ]
    index = pd.Index([entry.configuration for entry in entries], name="configuration")
    table = pd.DataFrame(rows, index=index).drop(columns=["configuration", "values"], errors="ignore")
    return with_score_names(table, score)


def _entry(number: int, controller: Controller, ledger: Ledger, name: str) -> Entry:
    state, units = controller.racing.states[number], ledger.of(number)
    scores = list(state.scores.values()) or [unit.best_score for unit in units if unit.best_score is not None]
    return Entry(
        configuration=number,
        name=name,
        state=_state(number, controller),
        folds=len(state.scores),
        mean_score=statistics.fmean(scores) if scores else None,
        sd_score=statistics.stdev(scores) if len(scores) > 1 else None,
        worst_fold_score=min(state.scores.values(), default=None),
        epochs=sum(unit.epochs for unit in units),
        device_hours=sum(unit.device_seconds for unit in units) / 3600,
        why=controller.reason_to_leave(FoldTrial(number, 0)) or "",
        values=controller.values[number],
    )


def _state(number: int, controller: Controller) -> State:
    state = controller.racing.states[number]
    if controller.racing.is_complete(number):
        return "complete"
    if state.stop_reason is None:
        return "waiting" if number in controller.waiting else "unfinished"
    if state.stop_reason.startswith("failed: "):
        return "failed"
    return "dropped" if state.scores else "stopped"


def best_two(entries: list[Entry]) -> tuple[Entry | None, Entry | None]:
    """The best two complete configurations."""
    first, second, *_ = [*(entry for entry in entries if entry.state == "complete"), None, None]
    return first, second

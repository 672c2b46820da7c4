from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from melanoma_dist.sweep.journal import Journal, Record
from melanoma_dist.sweep.leaderboard import best_and_next, leaderboard
from melanoma_dist.sweep.ledger import Milestone, make_ledger, milestones
from melanoma_dist.sweep.racing import FoldTrial

from .player import EPOCHS, FOLDS, conductor_of, play, settings_of


def line(what: str, time: float, configuration: int = 0, fold: int = 0, **fields: Any) -> Record:
    return {"what": what, "time": time, "configuration": configuration, "fold": fold, **fields}


def epoch(time: float, number: int, best: float, configuration: int = 0, fold: int = 0) -> Record:
    return line("epoch", time, configuration, fold, epoch=number, auc=best, best_auc=best, seconds=10.0)


SESSION = {"what": "session", "time": 0.0, "trials": 2, "device": "GPU", "per_unit": 2, "side_by_side": 2}
# Two ranks a unit. Configuration 0 finishes both folds in 25 s each (two epochs of 10 s, 5 s around them); 1 is stopped
# after an epoch and 15 s.
SMALL = [
    SESSION,
    line("start", 0.0),
    line("start", 0.0, 1),
    epoch(14.0, 1, 0.7),
    epoch(14.0, 1, 0.6, 1),
    line("stop", 14.0, 1, epoch=1, why="asha: slow"),
    line("end", 15.0, 1, state="stopped", seconds=15.0),
    epoch(24.0, 2, 0.8),
    line("end", 25.0, state="finished", seconds=25.0),
    line("start", 25.0, 0, 1),
    epoch(39.0, 1, 0.75, 0, 1),
    epoch(49.0, 2, 0.75, 0, 1),
    line("end", 50.0, 0, 1, state="finished", seconds=25.0),
]


def test_a_unit_costs_its_devices_from_start_to_end() -> None:
    ledger = make_ledger(SMALL, folds=2)
    assert ledger.device == "GPU"
    assert ledger.spent == 2 * (25 + 25 + 15)
    assert ledger.units["device_seconds"].tolist() == [50.0, 50.0, 30.0]
    assert ledger.units["state"].tolist() == ["finished", "finished", "stopped"]
    assert ledger.units["epochs"].tolist() == [2, 2, 1]
    assert ledger.units["why"].tolist() == ["", "", "asha: slow"]


def test_the_full_cost_is_estimated_from_the_time_per_epoch() -> None:
    ledger = make_ledger(SMALL, folds=2)
    # A fold takes 2 epochs of 10 s and 5 s around them, on 2 GPUs: 50 GPU-seconds; 2 configurations of 2 folds.
    assert ledger.full == pytest.approx(200.0)
    assert ledger.units["saved_device_seconds"].tolist()[1:] == [0.0, 70.0]


def test_a_unit_whose_command_was_killed_counts_to_its_last_epoch_and_again_from_its_restart() -> None:
    records = [
        SESSION, line("start", 0.0), epoch(14.0, 1, 0.7), {**SESSION, "time": 100.0}, line("restart", 100.0),
        epoch(115.0, 2, 0.8), line("end", 116.0, state="finished", seconds=16.0),
    ]  # fmt: skip
    assert make_ledger(records, folds=2).spent == 2 * (14 + 16)


def test_milestones_say_at_what_cost_an_auc_was_first_reached() -> None:
    first, whole = milestones(SMALL, folds=2)
    assert first == [Milestone(56.0, 0.7, 0), Milestone(2 * (24 + 15), 0.8, 0)]
    assert [(stone.device_seconds, stone.configuration) for stone in whole] == [(130.0, 0)]
    assert whole[0].auc == pytest.approx(0.775)


def test_an_empty_journal_costs_nothing() -> None:
    ledger = make_ledger([], folds=2)
    assert (ledger.spent, ledger.full, len(ledger.units)) == (0.0, None, 0)
    assert milestones([], folds=2) == ([], [])


def test_a_played_sweep_adds_up(tmp_path: Path) -> None:
    journal, conductor = Journal(tmp_path / "journal.jsonl"), conductor_of(settings_of(), tmp_path)
    journal.write("session", trials=8, device="CPU core", per_unit=1.0, side_by_side=2)
    play(conductor, journal, 2)
    ledger = make_ledger(journal.records, FOLDS)
    assert ledger.spent == pytest.approx(ledger.units["epochs"].sum() + 0.5 * len(ledger.units))
    assert ledger.full == pytest.approx(8 * FOLDS * (EPOCHS + 0.5))
    assert ledger.spent + ledger.units["saved_device_seconds"].sum() == pytest.approx(ledger.full)
    table = leaderboard(conductor, ledger, [f"c{number}" for number in range(8)])
    assert table["rank"].tolist() == list(range(1, 9))
    assert sorted(table.index) == list(range(8))
    best, _ = best_and_next(table)
    assert best == conductor.race.incumbent() == table.index[0]
    assert table["mean_auc"].iloc[0] == pytest.approx(
        pd.Series(conductor.race.runners[int(table.index[0])].aucs).mean()
    )
    assert set(table["state"]) <= {"complete", "stopped", "dropped"}
    assert table["optimizer.lr"].tolist() == [conductor.values[number]["optimizer.lr"] for number in table.index]


def test_complete_ones_come_first_and_failed_ones_last(tmp_path: Path) -> None:
    conductor = conductor_of(settings_of(scheduler="none", fold_race="none"), tmp_path, trials=3)
    journal = Journal(tmp_path / "journal.jsonl")
    first, second, third = (conductor.next() for _ in range(3))
    assert first is not None
    assert second is not None
    assert third is not None
    for place in (first, second, third):
        journal.write("start", configuration=place.configuration, fold=0, values=conductor.values[place.configuration])
    conductor.fail(first, "out of memory")
    for place, auc in ((second, 0.9), (third, 0.7)):
        conductor.epoch(place, 1, auc)
    conductor.finish(third)
    for fold in (1, 2):
        place = FoldTrial(third.configuration, fold)
        conductor.running[place] = conductor.running.get(place) or type(conductor.running[second])(1, 0.7)
        conductor.finish(place)
    table = leaderboard(conductor, make_ledger(journal.records, FOLDS), ["first", "second", "third"])
    assert table["name"].tolist() == ["third", "second", "first"]
    assert table["state"].tolist() == ["complete", "unfinished", "failed"]
    assert table["why"].tolist()[2] == "failed: out of memory"

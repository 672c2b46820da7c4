from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from melanoma_dist.sweep.controller import UnitProgress
from melanoma_dist.sweep.journal import (
    EpochFinished,
    Journal,
    Record,
    SessionStarted,
    UnitEnded,
    UnitRestarted,
    UnitStarted,
    UnitStopped,
    UnitWaits,
)
from melanoma_dist.sweep.leaderboard import as_table, best_two, leaderboard
from melanoma_dist.sweep.ledger import Milestone, make_ledger, milestones
from melanoma_dist.sweep.outcome import cost_sentence
from melanoma_dist.sweep.racing import FoldTrial

from .player import EPOCHS, FOLDS, controller_of, play, settings_of


def epoch(time: float, number: int, best: float, configuration: int = 0, fold: int = 0) -> Record:
    return EpochFinished(time, configuration, fold, number, best, best, seconds=10.0)


SESSION = SessionStarted(0.0, 2, "GPU", per_unit=2.0, ranks=2, share=1.0, side_by_side=2)
# Two ranks a unit. Configuration 0 finishes both folds in 25 s each (two epochs of 10 s, 5 s around them); 1 is stopped
# after an epoch and 15 s.
SMALL = [
    SESSION,
    UnitStarted(0.0, 0, 0),
    UnitStarted(0.0, 1, 0),
    epoch(14.0, 1, 0.7),
    epoch(14.0, 1, 0.6, 1),
    UnitStopped(14.0, 1, 0, epoch=1, why="asha: slow"),
    UnitEnded(15.0, 1, 0, "stopped", seconds=15.0),
    epoch(24.0, 2, 0.8),
    UnitEnded(25.0, 0, 0, "finished", seconds=25.0),
    UnitStarted(25.0, 0, 1),
    epoch(39.0, 1, 0.75, 0, 1),
    epoch(49.0, 2, 0.75, 0, 1),
    UnitEnded(50.0, 0, 1, "finished", seconds=25.0),
]


def test_a_unit_costs_its_devices_from_start_to_end() -> None:
    ledger = make_ledger(SMALL, folds=2)
    assert ledger.device == "GPU"
    assert ledger.spent == 2 * (25 + 25 + 15)
    table = ledger.table("AUC")
    assert table["device_seconds"].tolist() == [50.0, 50.0, 30.0]
    assert table["state"].tolist() == ["finished", "finished", "stopped"]
    assert table["epochs"].tolist() == [2, 2, 1]
    assert table["why"].tolist() == ["", "", "asha: slow"]


def test_the_full_cost_is_estimated_from_the_time_per_epoch() -> None:
    ledger = make_ledger(SMALL, folds=2)
    # A fold takes 2 epochs of 10 s and 5 s around them, on 2 GPUs: 50 GPU-seconds; 2 configurations of 2 folds.
    assert ledger.full == pytest.approx(200.0)
    assert [unit.saved_device_seconds for unit in ledger.units] == [None, 0.0, 70.0]


def test_after_a_kill_a_unit_counts_to_its_last_epoch_and_again_from_its_restart() -> None:
    records = [
        SESSION, UnitStarted(0.0, 0, 0), epoch(14.0, 1, 0.7), replace(SESSION, time=100.0), UnitRestarted(100.0, 0, 0),
        epoch(115.0, 2, 0.8), UnitEnded(116.0, 0, 0, "finished", seconds=16.0),
    ]  # fmt: skip
    assert make_ledger(records, folds=2).spent == 2 * (14 + 16)


COLD = [  # a first start of 30 s, a wait after an epoch, a second start of 5 s; the next fold has one start of 5 s
    replace(SESSION, per_unit=1.0),
    UnitStarted(0.0, 0, 0),
    epoch(40.0, 1, 0.7),
    UnitWaits(40.0, 0, 0, 1, "halving: few"),
    UnitEnded(40.0, 0, 0, "waiting", seconds=40.0),
    UnitStarted(40.0, 0, 0),
    epoch(55.0, 2, 0.8),
    UnitEnded(55.0, 0, 0, "finished", seconds=15.0),
    UnitStarted(55.0, 0, 1),
    epoch(70.0, 1, 0.8, 0, 1),
    epoch(80.0, 2, 0.8, 0, 1),
    UnitEnded(80.0, 0, 1, "finished", seconds=25.0),
]


def test_a_wait_alone_costs_more_than_all_folds_in_one_go() -> None:
    ledger = make_ledger(COLD, folds=2)
    assert (ledger.spent, ledger.full) == (80.0, pytest.approx(75.0))  # all but the second start
    assert cost_sentence(ledger).endswith(": 107%, so stopping early saved nothing")
    assert "nothing" not in cost_sentence(make_ledger(SMALL, folds=2))


def test_a_fold_that_never_started_is_saved_after_a_cold_start_too() -> None:
    other = [
        UnitStarted(80.0, 1, 0),
        epoch(95.0, 1, 0.8, 1),
        epoch(105.0, 2, 0.8, 1),
        UnitEnded(105.0, 1, 0, "finished", seconds=25.0),
        UnitStarted(105.0, 1, 1),
        epoch(120.0, 1, 0.8, 1, 1),
        epoch(130.0, 2, 0.8, 1, 1),
        UnitEnded(130.0, 1, 1, "finished", seconds=25.0),
    ]
    ledger = make_ledger([*COLD[:8], *other], folds=2)
    whole = (30 + 5 + 5) / 3 + 2 * 10  # the mean of three first starts, two epochs
    assert ledger.of(0)[-1].saved_device_seconds == pytest.approx(whole - 5, abs=1e-3)  # less the second start
    assert ledger.full == pytest.approx(30 + 20 + whole + 50)


def test_milestones_give_the_cost_of_each_new_best_score() -> None:
    first, whole = milestones(SMALL, folds=2)
    assert first == [Milestone(56.0, 0.7, 0), Milestone(2 * (24 + 15), 0.8, 0)]
    assert [(point.device_seconds, point.configuration) for point in whole] == [(130.0, 0)]
    assert whole[0].score == pytest.approx(0.775)


def test_an_empty_journal_costs_nothing() -> None:
    ledger = make_ledger([], folds=2)
    assert (ledger.spent, ledger.full, len(ledger.units)) == (0.0, None, 0)
    assert milestones([], folds=2) == ([], [])


@pytest.mark.parametrize("scheduler", ["halving", "asha"])
def test_a_played_sweep_adds_up(scheduler: str, tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.jsonl")
    controller = controller_of(settings_of(scheduler=scheduler), tmp_path)
    journal.write(SessionStarted(0.0, 8, "CPU core", per_unit=1.0, ranks=1, share=1.0, side_by_side=2))
    play(controller, journal, 2)
    ledger = make_ledger(journal.records, FOLDS)
    starts = [record.configuration for record in journal.records if isinstance(record, UnitStarted)]
    assert (len(starts) > len(ledger.units)) == (scheduler == "halving")
    assert ledger.spent == pytest.approx(sum(unit.epochs for unit in ledger.units) + 0.5 * len(starts))
    assert ledger.full == pytest.approx(8 * FOLDS * (EPOCHS + 0.5))
    whole = [number for number in range(8) if sum(unit.epochs for unit in ledger.of(number)) == FOLDS * EPOCHS]
    continued = 0.5 * sum(starts.count(number) - FOLDS for number in whole)  # more starts than whole folds need
    saved = ledger.table("AUC")["saved_device_seconds"].sum()
    assert ledger.spent + saved == pytest.approx(ledger.full + continued)
    entries = leaderboard(controller, ledger, [f"c{number}" for number in range(8)])
    table = as_table(entries, "AUC")
    assert table["rank"].tolist() == list(range(1, 9))
    assert sorted(table.index) == list(range(8))
    best, _ = best_two(entries)
    assert best is not None
    assert best.configuration == controller.racing.incumbent() == table.index[0]
    assert table["mean_auc"].iloc[0] == pytest.approx(
        pd.Series(controller.racing.states[int(table.index[0])].scores).mean()
    )
    assert set(table["state"]) <= {"complete", "waiting" if scheduler == "halving" else "stopped", "dropped"}
    assert table["optimizer.lr"].tolist() == [controller.values[number]["optimizer.lr"] for number in table.index]


def test_complete_configurations_come_first_and_failed_ones_last(tmp_path: Path) -> None:
    controller = controller_of(settings_of(scheduler="none", fold_race="none"), tmp_path, trials=3)
    journal = Journal(tmp_path / "journal.jsonl")
    first, second, third = (controller.next() for _ in range(3))
    assert first is not None
    assert second is not None
    assert third is not None
    for trial in (first, second, third):
        journal.write(UnitStarted(0.0, *trial, controller.values[trial.configuration]))
    controller.fail(first, "out of memory")
    for trial, auc in ((second, 0.9), (third, 0.7)):
        controller.report_epoch(trial, 1, auc)
    controller.finish(third)
    for fold in (1, 2):
        trial = FoldTrial(third.configuration, fold)
        controller.running[trial] = controller.running.get(trial) or UnitProgress(1, 0.7)
        controller.finish(trial)
    entries = leaderboard(controller, make_ledger(journal.records, FOLDS), ["first", "second", "third"])
    assert [entry.name for entry in entries] == ["third", "second", "first"]
    assert [entry.state for entry in entries] == ["complete", "unfinished", "failed"]
    assert entries[2].why == "failed: out of memory"

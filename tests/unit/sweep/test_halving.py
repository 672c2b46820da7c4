"""Successive halving with waiting: which first folds continue, and what a sweep keeps of those that wait."""

from __future__ import annotations

from pathlib import Path

import pytest

from melanoma_dist.data.manifest import Dataset
from melanoma_dist.sweep.halving import Halving
from melanoma_dist.sweep.journal import EpochFinished, Journal, UnitStarted
from melanoma_dist.sweep.leaderboard import leaderboard
from melanoma_dist.sweep.ledger import make_ledger
from melanoma_dist.sweep.racing import FoldTrial
from tests.unit.sweep.player import EPOCHS, FOLDS, controller_of, play, settings_of
from tests.unit.sweep.test_work_source import Setting, epoch_done, train


def test_a_first_fold_waits_until_it_is_among_the_best_1_in_4_so_far() -> None:
    halving = Halving(epochs=9, grace_epochs=1, factor=4)
    for configuration, auc in enumerate((0.7, 0.8, 0.6)):
        assert halving.report(configuration, 1, auc) is not None  # of fewer than 4, none is the best quarter
        halving.release(configuration, 1)
        assert halving.candidate(last=False) is None
    assert halving.report(3, 1, 0.5) == "halving: best AUC 0.5000 after 1 epoch is not among the best 1 in 4 so far"
    halving.release(3, 1)
    assert halving.candidate(last=False) == 1
    halving.resume(1)
    assert halving.report(1, 2, 0.81) is None  # between rungs, which lie after epochs 1 and 4
    assert halving.report(1, 4, 0.82) is not None
    assert [halving.report(number, 1, 0.9 + number / 100) for number in range(4, 8)] == [None] * 4


def test_one_that_still_leaves_its_devices_does_not_continue() -> None:
    halving = Halving(epochs=9, grace_epochs=1, factor=2)
    halving.report(0, 1, 0.8)
    halving.report(1, 1, 0.7)
    assert halving.candidate(last=False) is None
    halving.release(1, 1)
    assert halving.candidate(last=False) is None
    halving.release(0, 1)
    assert halving.candidate(last=False) == 0


def test_three_continue_beyond_each_rung_once_nothing_else_is_left() -> None:
    halving = Halving(epochs=9, grace_epochs=1, factor=4)
    for configuration, auc in enumerate((0.5, 0.8, 0.6, 0.7)):
        halving.report(configuration, 1, auc)
        halving.release(configuration, 1)
    continued = []
    while (configuration := halving.candidate(last=True)) is not None:
        halving.resume(configuration)
        halving.finish(configuration, 9, 0.9)
        continued.append(configuration)
    assert continued == [1, 3, 2]
    assert halving.waiting() == [0]


@pytest.mark.parametrize("side_by_side", [1, 3])
def test_a_sweep_trains_the_best_configuration_whole_and_no_epoch_twice(side_by_side: int, tmp_path: Path) -> None:
    journal, controller = (
        Journal(tmp_path / "journal.jsonl"),
        controller_of(settings_of(searcher="random"), tmp_path, 16),
    )
    play(controller, journal, side_by_side)
    assert controller.is_finished()
    assert controller.racing.incumbent() is not None
    epochs = [record for record in journal.records if isinstance(record, EpochFinished)]
    assert len({(record.trial, record.epoch) for record in epochs}) == len(epochs) < 16 * FOLDS * EPOCHS / 3
    starts = [record.trial for record in journal.records if isinstance(record, UnitStarted)]
    assert len(set(starts)) < len(starts)  # some continued


def test_a_first_fold_that_waits_leaves_its_devices_and_continues_from_its_checkpoint(
    dataset: Dataset, tmp_path: Path
) -> None:
    setting = Setting(dataset, tmp_path, scheduler="halving")
    source, starts = setting.start(), []
    while (unit := source.next_unit()) is not None:
        progress = setting.controller.running[FoldTrial(int(unit.run.name[1:4]), unit.fold)]
        starts.append((unit.config.optimizer.lr, progress.epoch))
        assert (unit.folder / "checkpoints").is_dir() == (progress.epoch > 0)
        train(source, unit, first=progress.epoch + 1)
    assert setting.controller.is_finished()
    for rung in (1, 3):
        continued = [rate for rate, epoch in starts if epoch == rung]
        assert continued == sorted(continued, reverse=True)  # the higher the rate the better
        assert len(continued) == 3
    assert not list(tmp_path.rglob("checkpoints"))
    assert {record.what for record in setting.journal.records} == {"start", "epoch", "wait", "end", "drop"}


def test_the_best_continues_though_it_leaves_its_devices_last(dataset: Dataset, tmp_path: Path) -> None:
    setting = Setting(dataset, tmp_path, scheduler="halving")
    setting.trials = 2
    source = setting.start()
    units = [source.next_unit(), source.next_unit()]
    best, other = sorted((unit for unit in units if unit), key=lambda unit: -unit.config.optimizer.lr)
    for unit in (best, other):
        assert source.on_event(unit, epoch_done(unit, 1)) is not None
    source.on_exit(other, 1.0)
    assert source.next_unit() is None
    source.on_exit(best, 1.0)
    assert source.next_unit() == best


def test_folds_that_leave_at_the_same_time_keep_their_checkpoints(dataset: Dataset, tmp_path: Path) -> None:
    setting = Setting(dataset, tmp_path, scheduler="halving")
    source = setting.start()
    units = [unit for _ in range(4) if (unit := source.next_unit()) is not None]
    for unit in units:
        (unit.folder / "checkpoints").mkdir(parents=True)
        source.on_event(unit, epoch_done(unit, 1))
    leaving = [unit for unit in units if int(unit.run.name[1:4]) in setting.controller.waiting]
    assert len(leaving) == 4
    for unit in leaving:
        assert not setting.controller.is_finished()
        source.on_exit(unit, 1.0)
        assert (unit.folder / "checkpoints").is_dir()


def test_a_later_command_continues_one_that_waits_though_its_checkpoint_is_gone(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("melanoma_dist.sweep.work_source._MOST_SAVED", 0)
    setting = Setting(dataset, tmp_path, scheduler="halving")
    source = setting.start()
    for _ in range(3):
        unit = source.next_unit()
        assert unit is not None
        assert train(source, unit) is not None
    assert not list(tmp_path.rglob("checkpoints"))
    again = setting.start()
    unit = again.next_unit()
    assert unit is not None
    assert unit.config.optimizer.lr == 0.4
    answer = train(again, unit)
    assert answer == "halving: best AUC 0.9300 after 3 epochs is not among the best 1 in 3 so far"
    epochs = [record.epoch for record in setting.journal.records if isinstance(record, EpochFinished)]
    assert epochs == [1, 1, 1, 2, 3]  # its first epoch was reported again, and counts once


def test_the_leaderboard_says_what_a_configuration_waits_for(dataset: Dataset, tmp_path: Path) -> None:
    setting = Setting(dataset, tmp_path, scheduler="halving")
    source = setting.start()
    while (unit := source.next_unit()) is not None:
        train(source, unit, first=setting.controller.running[FoldTrial(int(unit.run.name[1:4]), unit.fold)].epoch + 1)
    names = [str(number) for number in range(4)]
    entries = leaderboard(setting.controller, make_ledger(setting.journal.records, 2), names)
    [waiting] = [entry for entry in entries if entry.state == "waiting"]
    assert waiting.why == "halving: best AUC 0.6100 after 1 epoch is not among the best 1 in 3 so far"
    assert waiting.epochs == 1

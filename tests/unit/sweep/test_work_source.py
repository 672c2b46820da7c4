"""The work source of a sweep, with an engine that only pretends to train."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from melanoma_dist.config.run import RunConfig
from melanoma_dist.config.sweep import Scheduler, SweepConfig
from melanoma_dist.data.folds import make_folds
from melanoma_dist.data.labels import LABEL_SETS
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.display import Display
from melanoma_dist.errors import ConfigError, DataError, ResumeError, StorageError, TrainingError
from melanoma_dist.sweep.controller import Controller
from melanoma_dist.sweep.halving import Halving
from melanoma_dist.sweep.journal import EpochFinished, Journal, UnitEnded, UnitFailed
from melanoma_dist.sweep.ledger import make_ledger
from melanoma_dist.sweep.population import Population
from melanoma_dist.sweep.racing import FoldRacing
from melanoma_dist.sweep.replay import add_missing_records, replay
from melanoma_dist.sweep.search import Stopper, build_searcher
from melanoma_dist.sweep.work_source import SweepContext, SweepWorkSource
from melanoma_dist.train.events import EpochDone, Paused, UnitDone
from melanoma_dist.train.unit import Unit

from ..samples import tiny
from .test_space import space_of

EPOCHS, FOLDS = 4, 2
SPACE = 'SPACE = {"optimizer.lr": tune.choice([0.1, 0.2, 0.3, 0.4]), "schedule.warmup_epochs": tune.choice([0.0, 1.0])}'


class Setting:
    """A sweep in a folder, for several commands one after the other."""

    def __init__(
        self,
        dataset: Dataset,
        folder: Path,
        space: str = SPACE,
        scheduler: Scheduler = "asha",
        config: RunConfig | None = None,
    ) -> None:
        self.folder = folder
        config = config or tiny(folds=FOLDS, epochs=EPOCHS, labels="isic2019")
        self.settings = SweepConfig(run=config, grace_epochs=1, trials=4, scheduler=scheduler, reduction_factor=3)
        self.space = space_of(folder, space)
        folds = make_folds(dataset.manifest, LABEL_SETS["isic2019"], FOLDS, 0)
        self.context = SweepContext(config, dataset, folds, folder, self.space)
        self.ended: list[int] = []
        self.trials = 4

    def start(self, deadline: float | None = None) -> SweepWorkSource:
        """Do what a command does before it trains."""
        self.journal = Journal(self.folder / "journal.jsonl")
        searcher = build_searcher(self.settings, self.space, 0)
        racing = FoldRacing(self.settings.folds, "forgiving", self.settings.run.score_name)
        waiting = Halving.of(self.settings) or Population.of(self.settings, self.space)
        self.controller = Controller(searcher, Stopper(self.settings), waiting, racing, self.trials)
        replay(self.journal.records, self.controller, self.folder / "journal.jsonl")
        add_missing_records(self.journal, self.controller)
        return SweepWorkSource(
            self.context, self.controller, self.journal, Display(), deadline, lambda number: self.ended.append(number)
        )


@pytest.fixture
def setting(dataset: Dataset, tmp_path: Path) -> Iterator[Setting]:
    return Setting(dataset, tmp_path)


def epoch_done(unit: Unit, epoch: int) -> EpochDone:
    """The higher the rate the better."""
    auc = 0.5 + unit.config.at_epoch(epoch - 1).optimizer.lr + 0.01 * epoch
    return EpochDone(unit.fold, epoch, EPOCHS, 0.1, 0.2, "AUC", auc, auc, epoch, 1.0, 0.0, 1.0)


def train(source: SweepWorkSource, unit: Unit, first: int = 1, last: int = EPOCHS) -> str | None:
    """Train some epochs of a unit, to its end unless the source stops it."""
    (unit.folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    for epoch in range(first, last + 1):
        answer = source.on_event(unit, epoch_done(unit, epoch))
        if answer is not None:
            source.on_exit(unit, float(epoch))
            return answer
    if last == EPOCHS:
        unit.predictions.touch()
        source.on_event(unit, UnitDone(unit.fold, "AUC", 0.9, EPOCHS, "all epochs done"))
        source.on_exit(unit, float(EPOCHS))
    return None


def test_a_finished_sweep_leaves_no_checkpoints(setting: Setting) -> None:
    source = setting.start()
    while (unit := source.next_unit()) is not None:
        train(source, unit)
    assert setting.controller.is_finished()
    best = setting.controller.racing.incumbent()
    assert best is not None
    rates = [values["optimizer.lr"] for values in setting.controller.values]
    assert rates[best] == max(rates)
    assert not list(setting.folder.rglob("checkpoints"))
    assert sorted(set(setting.ended)) == [0, 1, 2, 3]
    assert (setting.folder / setting.context.name(0, setting.controller.values[0]) / "config.yaml").is_file()


def test_checkpoints_stay_where_the_user_wants_them(setting: Setting) -> None:
    config = setting.context.config
    faults = replace(config.fault_tolerance, keep_checkpoints=True)
    setting.context = replace(setting.context, config=replace(config, fault_tolerance=faults))
    source = setting.start()
    while (unit := source.next_unit()) is not None:
        train(source, unit)
    assert list(setting.folder.rglob("checkpoints"))


def test_units_pause_when_the_time_budget_is_spent_and_a_later_command_resumes_them(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadline = time.monotonic() + 60
    source = setting.start(deadline=deadline)
    unit = source.next_unit()
    assert unit is not None
    assert source.on_event(unit, epoch_done(unit, 1)) is None
    monkeypatch.setattr(time, "monotonic", lambda: deadline + 0.1)
    assert source.on_event(unit, epoch_done(unit, 2)) == "the time budget is spent"
    (unit.folder / "checkpoints").mkdir(parents=True)
    source.on_exit(unit, 2.0)
    assert source.next_unit() is None
    assert (unit.folder / "checkpoints").is_dir()  # to resume from
    again = setting.start()
    same = again.next_unit()
    assert same == unit
    assert train(again, same, first=3) is None
    assert [record.what for record in setting.journal.records] == [
        "start", "epoch", "epoch", "end", "restart", "epoch", "epoch", "end",
    ]  # fmt: skip


def test_an_epoch_reported_twice_counts_once(setting: Setting) -> None:
    source = setting.start()
    unit = source.next_unit()
    assert unit is not None
    for _ in range(2):
        assert source.on_event(unit, epoch_done(unit, 1)) is None
    assert sum(isinstance(record, EpochFinished) for record in setting.journal.records) == 1


def test_a_unit_that_cannot_be_trained_fails_its_configuration_and_no_other(setting: Setting) -> None:
    source = setting.start()
    unit = source.next_unit()
    assert unit is not None
    source.on_failure(unit, 3.0, TrainingError("GPU 0 ran out of memory"))
    while (unit := source.next_unit()) is not None:
        train(source, unit)
    states = setting.controller.racing.states
    assert states[0].stop_reason == "failed: GPU 0 ran out of memory"
    assert setting.controller.racing.incumbent() not in (None, 0)
    assert make_ledger(setting.journal.records, FOLDS).units[0].state == "failed"
    setting.start()
    assert setting.controller.is_finished()  # a later command does not retry it


def test_paused_units_are_not_waited_for(setting: Setting) -> None:
    """Units still present after the grace period are killed: ten seconds for each would be too many."""
    source = setting.start()
    unit = source.next_unit()
    assert unit is not None
    source.on_event(unit, epoch_done(unit, 1))
    (unit.folder / "checkpoints").mkdir(parents=True)
    start = time.monotonic()
    source.on_event(unit, Paused(unit.fold, "step 3 of 4 of epoch 2"))
    source.on_exit(unit, 2.0)
    assert time.monotonic() - start < 5
    assert (unit.folder / "checkpoints").is_dir()
    end = setting.journal.records[-1]
    assert isinstance(end, UnitEnded)
    assert end.state == "paused"
    assert setting.start().next_unit() == unit


@pytest.mark.parametrize("error", [StorageError("the disk is full"), ResumeError("other ranks")], ids=repr)
def test_an_error_of_the_environment_ends_the_sweep_and_keeps_checkpoints(
    error: TrainingError, setting: Setting
) -> None:
    source = setting.start()
    unit = source.next_unit()
    assert unit is not None
    (unit.folder / "checkpoints").mkdir(parents=True)
    with pytest.raises(type(error)):
        source.on_failure(unit, 1.0, error)
    assert (unit.folder / "checkpoints").is_dir()
    assert setting.start().next_unit() == unit  # a later command resumes it


def test_a_folder_that_cannot_be_created_ends_the_sweep_and_fails_no_configuration(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise ConfigError("--runs: cannot be written (No space left on device)")

    source = setting.start()
    monkeypatch.setattr("melanoma_dist.sweep.work_source.open_run", full)
    with pytest.raises(ConfigError, match="No space left"):
        source.next_unit()
    monkeypatch.undo()
    assert not [record for record in setting.journal.records if isinstance(record, UnitFailed)]
    again = setting.start()
    unit = again.next_unit()
    assert unit is not None
    assert train(again, unit) is None


def test_changed_data_ends_the_sweep(setting: Setting) -> None:
    source = setting.start()
    unit = source.next_unit()
    assert unit is not None
    with pytest.raises(DataError, match="changed"):
        source.on_failure(unit, 1.0, DataError("the data changed"))


def test_values_that_do_not_fit_together_fail_one_configuration(dataset: Dataset, tmp_path: Path) -> None:
    body = (
        'SPACE = {"schedule.warmup_epochs": tune.choice([0.0, 1.0]), "input.batch_size": '
        'tune.sample_from(lambda config: 8 if config["schedule.warmup_epochs"] else 60000)}'
    )
    setting = Setting(dataset, tmp_path, body)
    source = setting.start()
    units = []
    while (unit := source.next_unit()) is not None:
        units.append(unit)
        train(source, unit)
    assert {unit.config.input.batch_size for unit in units} == {8}
    outs = [state.stop_reason for state in setting.controller.racing.states]
    assert len(outs) == 2
    assert sum(out is not None and out.startswith("failed: --batch-size 60000") for out in outs) == 1


def test_a_command_killed_between_two_of_its_files_resumes(setting: Setting) -> None:
    """The record of the end is missing: the unit restarts, detects that it is finished, and ends."""
    source = setting.start()
    unit = source.next_unit()
    assert unit is not None
    for epoch in range(1, EPOCHS + 1):
        assert source.on_event(unit, epoch_done(unit, epoch)) is None
    unit.folder.mkdir(parents=True, exist_ok=True)
    unit.predictions.touch()
    again = setting.start()
    same = again.next_unit()
    assert same == unit
    assert again.on_event(same, epoch_done(same, EPOCHS)) is None
    again.on_exit(same, 1.0)
    assert setting.controller.racing.states[0].scores.keys() == {0}


def test_names_are_readable_and_safe_for_file_systems(setting: Setting) -> None:
    values = {
        "model.backbone": "hf_hub/timm:vit base",
        "optimizer.lr": 3.14159e-4,
        "input.balance": True,
        "model.hidden": 64,
    }
    assert setting.context.name(7, values) == "c007-hf_hub_timm_vit_base-lr0.000314-balance-hidden64"
    assert len(setting.context.name(1, {f"model.{'x' * 20}{number}": 1 for number in range(9)})) <= 61


def test_a_unit_that_died_after_its_stop_is_stopped_again(setting: Setting) -> None:
    """The engine restarts it; nothing it does then counts."""
    source = setting.start()
    first = source.next_unit()
    assert first is not None
    train(source, first)
    stopped = source.next_unit()
    while stopped is not None and (answer := source.on_event(stopped, epoch_done(stopped, 1))) is None:
        train(source, stopped, first=2)
        stopped = source.next_unit()
    assert stopped is not None
    assert answer is not None
    assert source.on_event(stopped, epoch_done(stopped, 1)) == answer
    stopped.folder.mkdir(parents=True, exist_ok=True)
    stopped.predictions.touch()
    source.on_exit(stopped, 2.0)
    assert [record.state for record in setting.journal.records if isinstance(record, UnitEnded)][-1] == "stopped"
    setting.start()  # the journal still replays


def test_a_unit_whose_configuration_is_dropped_while_it_waits_is_not_started(setting: Setting) -> None:
    source = setting.start()
    waiting, other = source.next_unit(), source.next_unit()
    assert waiting is not None
    assert other is not None
    again = setting.start()
    setting.controller.racing.stop(0, "dropped meanwhile")
    assert again.next_unit() == other
    assert [trial.configuration for trial in setting.controller.running] == [1]

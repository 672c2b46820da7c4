"""The agenda of a sweep, served by an engine that only pretends to train."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from melanoma_dist.config.sweep import SweepConfig
from melanoma_dist.data.folds import make_folds
from melanoma_dist.data.labels import LABEL_SETS
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.display import Display
from melanoma_dist.errors import ConfigError, DataError, ResumeError, StorageError, TrainingError
from melanoma_dist.sweep.controller import Controller
from melanoma_dist.sweep.journal import Journal, replay, settle
from melanoma_dist.sweep.ledger import make_ledger
from melanoma_dist.sweep.racing import FoldRacing
from melanoma_dist.sweep.search import Stopper, build_searcher
from melanoma_dist.sweep.work_source import SweepContext, SweepWorkSource
from melanoma_dist.train.events import EpochDone, Paused, UnitDone
from melanoma_dist.train.unit import Unit

from ..samples import tiny
from .test_space import space_of

EPOCHS, FOLDS = 4, 2
SPACE = 'SPACE = {"optimizer.lr": tune.choice([0.1, 0.2, 0.3, 0.4]), "schedule.warmup_epochs": tune.choice([0.0, 1.0])}'


class Setting:
    """A sweep in a folder, which commands may work at one after the other."""

    def __init__(self, dataset: Dataset, folder: Path, space: str = SPACE) -> None:
        self.folder = folder
        config = tiny(folds=FOLDS, epochs=EPOCHS, labels="isic2019")
        self.settings = SweepConfig(run=config, grace_epochs=1, trials=4)
        self.space = space_of(folder, space)
        folds = make_folds(dataset.manifest, LABEL_SETS["isic2019"], FOLDS, 0)
        self.ground = SweepContext(config, dataset, folds, folder, tuple(self.space.domains))
        self.ended: list[int] = []

    def begin(self, deadline: float | None = None) -> SweepWorkSource:
        """What a command does before it trains."""
        self.journal = Journal(self.folder / "journal.jsonl")
        searcher = build_searcher(self.settings, self.space, 0)
        self.conductor = Controller(searcher, Stopper(self.settings), FoldRacing(FOLDS, "forgiving"), 4)
        replay(self.journal.records, self.conductor, self.folder / "journal.jsonl")
        settle(self.journal, self.conductor)
        return SweepWorkSource(
            self.ground, self.conductor, self.journal, Display(), deadline, lambda number: self.ended.append(number)
        )


@pytest.fixture
def setting(dataset: Dataset, tmp_path: Path) -> Iterator[Setting]:
    return Setting(dataset, tmp_path)


def epoch_done(unit: Unit, epoch: int) -> EpochDone:
    """The higher the rate the better."""
    auc = 0.5 + unit.config.optimizer.lr + 0.01 * epoch
    return EpochDone(unit.fold, epoch, EPOCHS, 0.1, auc, None, auc, epoch, 1.0, 0.0, 1.0)


def train(agenda: SweepWorkSource, unit: Unit, first: int = 1, last: int = EPOCHS) -> str | None:
    """Some epochs of a unit, to its end if it is not told to stop."""
    (unit.folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    for epoch in range(first, last + 1):
        answer = agenda.on_event(unit, epoch_done(unit, epoch))
        if answer is not None:
            agenda.on_exit(unit, float(epoch))
            return answer
    if last == EPOCHS:
        unit.predictions.touch()
        agenda.on_event(unit, UnitDone(unit.fold, 0.9, EPOCHS, "all epochs done"))
        agenda.on_exit(unit, float(EPOCHS))
    return None


def test_a_sweep_runs_to_its_end_and_leaves_no_checkpoints(setting: Setting) -> None:
    agenda = setting.begin()
    while (unit := agenda.next_unit()) is not None:
        train(agenda, unit)
    assert setting.conductor.over()
    best = setting.conductor.race.incumbent()
    assert best is not None
    rates = [values["optimizer.lr"] for values in setting.conductor.values]
    assert rates[best] == max(rates)
    assert not list(setting.folder.rglob("checkpoints"))
    assert sorted(set(setting.ended)) == [0, 1, 2, 3]
    assert (setting.folder / setting.ground.name(0, setting.conductor.values[0]) / "config.yaml").is_file()


def test_when_the_time_is_spent_units_pause_and_a_later_command_goes_on(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    deadline = time.monotonic() + 60
    agenda = setting.begin(deadline=deadline)
    unit = agenda.next_unit()
    assert unit is not None
    assert agenda.on_event(unit, epoch_done(unit, 1)) is None
    monkeypatch.setattr(time, "monotonic", lambda: deadline + 0.1)
    assert agenda.on_event(unit, epoch_done(unit, 2)) == "the time budget is spent"
    (unit.folder / "checkpoints").mkdir(parents=True)
    agenda.on_exit(unit, 2.0)
    assert agenda.next_unit() is None
    assert (unit.folder / "checkpoints").is_dir()  # it goes on from there
    again = setting.begin()
    same = again.next_unit()
    assert same == unit
    assert train(again, same, first=3) is None
    assert [record["what"] for record in setting.journal.records] == [
        "start", "epoch", "epoch", "end", "restart", "epoch", "epoch", "end",
    ]  # fmt: skip


def test_an_epoch_told_twice_counts_once(setting: Setting) -> None:
    agenda = setting.begin()
    unit = agenda.next_unit()
    assert unit is not None
    for _ in range(2):
        assert agenda.on_event(unit, epoch_done(unit, 1)) is None
    assert sum(record["what"] == "epoch" for record in setting.journal.records) == 1


def test_a_unit_that_cannot_be_trained_takes_its_configuration_out_and_no_other(setting: Setting) -> None:
    agenda = setting.begin()
    unit = agenda.next_unit()
    assert unit is not None
    agenda.on_failure(unit, 3.0, TrainingError("GPU 0 ran out of memory"))
    while (unit := agenda.next_unit()) is not None:
        train(agenda, unit)
    runners = setting.conductor.race.runners
    assert runners[0].out == "failed: GPU 0 ran out of memory"
    assert setting.conductor.race.incumbent() not in (None, 0)
    assert make_ledger(setting.journal.records, FOLDS).units["state"].tolist()[0] == "failed"
    setting.begin()
    assert setting.conductor.over()  # a later command does not try it again


def test_units_that_left_as_they_were_asked_to_are_not_waited_for(setting: Setting) -> None:
    """A second command kills what has not ended in time: ten seconds for each would be too many."""
    agenda = setting.begin()
    unit = agenda.next_unit()
    assert unit is not None
    agenda.on_event(unit, epoch_done(unit, 1))
    (unit.folder / "checkpoints").mkdir(parents=True)
    start = time.monotonic()
    agenda.on_event(unit, Paused(unit.fold, "step 3 of 4 of epoch 2"))
    agenda.on_exit(unit, 2.0)
    assert time.monotonic() - start < 5
    assert (unit.folder / "checkpoints").is_dir()
    assert setting.journal.records[-1]["state"] == "paused"
    assert setting.begin().next_unit() == unit


@pytest.mark.parametrize("error", [StorageError("the disk is full"), ResumeError("other ranks")], ids=repr)
def test_what_is_no_fault_of_a_configuration_ends_the_sweep_and_keeps_its_checkpoints(
    error: TrainingError, setting: Setting
) -> None:
    agenda = setting.begin()
    unit = agenda.next_unit()
    assert unit is not None
    (unit.folder / "checkpoints").mkdir(parents=True)
    with pytest.raises(type(error)):
        agenda.on_failure(unit, 1.0, error)
    assert (unit.folder / "checkpoints").is_dir()
    assert setting.begin().next_unit() == unit  # a later command goes on with it


def test_a_folder_that_cannot_be_made_ends_the_sweep_and_burns_no_configuration(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise ConfigError("--runs: cannot be written (No space left on device)")

    agenda = setting.begin()
    monkeypatch.setattr("melanoma_dist.sweep.work_source.open_run", full)
    with pytest.raises(ConfigError, match="No space left"):
        agenda.next_unit()
    monkeypatch.undo()
    assert not [record for record in setting.journal.records if record["what"] == "fail"]
    again = setting.begin()
    unit = again.next_unit()
    assert unit is not None
    assert train(again, unit) is None


def test_data_that_changed_ends_the_sweep(setting: Setting) -> None:
    agenda = setting.begin()
    unit = agenda.next_unit()
    assert unit is not None
    with pytest.raises(DataError, match="changed"):
        agenda.on_failure(unit, 1.0, DataError("the data changed"))


def test_values_that_do_not_go_together_fail_one_configuration(dataset: Dataset, tmp_path: Path) -> None:
    body = (
        'SPACE = {"schedule.warmup_epochs": tune.choice([0.0, 1.0]), "input.batch_size": '
        'tune.sample_from(lambda config: 8 if config["schedule.warmup_epochs"] else 60000)}'
    )
    setting = Setting(dataset, tmp_path, body)
    agenda = setting.begin()
    units = []
    while (unit := agenda.next_unit()) is not None:
        units.append(unit)
        train(agenda, unit)
    assert {unit.config.input.batch_size for unit in units} == {8}
    outs = [runner.out for runner in setting.conductor.race.runners]
    assert len(outs) == 2
    assert sum(out is not None and out.startswith("failed: --batch-size 60000") for out in outs) == 1


def test_a_command_killed_between_its_files_goes_on(setting: Setting) -> None:
    """Finished, but its end was not written: the unit is started again, finds itself finished, and ends."""
    agenda = setting.begin()
    unit = agenda.next_unit()
    assert unit is not None
    for epoch in range(1, EPOCHS + 1):
        assert agenda.on_event(unit, epoch_done(unit, epoch)) is None
    unit.folder.mkdir(parents=True, exist_ok=True)
    unit.predictions.touch()
    again = setting.begin()
    same = again.next_unit()
    assert same == unit
    assert again.on_event(same, epoch_done(same, EPOCHS)) is None
    again.on_exit(same, 1.0)
    assert setting.conductor.race.runners[0].aucs.keys() == {0}


def test_names_are_for_people_and_file_systems(setting: Setting) -> None:
    values = {
        "model.backbone": "hf_hub/timm:vit base",
        "optimizer.lr": 3.14159e-4,
        "input.balance": True,
        "model.hidden": 64,
    }
    assert setting.ground.name(7, values) == "c007-hf_hub_timm_vit_base-lr0.000314-balance-hidden64"
    assert len(setting.ground.name(1, {f"model.{'x' * 20}{number}": 1 for number in range(9)})) <= 61


def test_a_unit_that_died_after_it_was_told_to_stop_is_told_again(setting: Setting) -> None:
    """It is started again by the engine; nothing it does then counts."""
    agenda = setting.begin()
    first = agenda.next_unit()
    assert first is not None
    train(agenda, first)
    stopped = agenda.next_unit()
    while stopped is not None and (answer := agenda.on_event(stopped, epoch_done(stopped, 1))) is None:
        train(agenda, stopped, first=2)
        stopped = agenda.next_unit()
    assert stopped is not None
    assert answer is not None
    assert agenda.on_event(stopped, epoch_done(stopped, 1)) == answer
    stopped.folder.mkdir(parents=True, exist_ok=True)
    stopped.predictions.touch()
    agenda.on_exit(stopped, 2.0)
    assert [record["state"] for record in setting.journal.records if record["what"] == "end"][-1] == "stopped"
    setting.begin()  # the journal can still be told


def test_a_unit_whose_configuration_is_dropped_while_it_waits_is_not_started(setting: Setting) -> None:
    agenda = setting.begin()
    waiting, other = agenda.next_unit(), agenda.next_unit()
    assert waiting is not None
    assert other is not None
    again = setting.begin()
    setting.conductor.race.leave(0, "dropped meanwhile")
    assert again.next_unit() == other
    assert [place.configuration for place in setting.conductor.running] == [1]

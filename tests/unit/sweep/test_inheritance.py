"""Members of a population train in a sweep: children start from the checkpoints of their parents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from melanoma_dist.config.flags import parse_with_file
from melanoma_dist.config.run import RunConfig, with_values
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.errors import TrainingError
from melanoma_dist.sweep.ledger import make_ledger
from melanoma_dist.sweep.outcome import Outcome
from melanoma_dist.sweep.work_source import SweepWorkSource
from melanoma_dist.train.checkpoint import Checkpoints, Cursor
from melanoma_dist.train.unit import Unit

from .test_work_source import EPOCHS as LAST
from .test_work_source import Setting, epoch_done


class Trainer:
    """Saves real checkpoints that say who trained each epoch."""

    def __init__(self, source: SweepWorkSource) -> None:
        self.source = source
        self.inherited: dict[str, list[str]] = {}

    def train(self, unit: Unit) -> None:
        checkpoints = Checkpoints(unit.folder / "checkpoints", print)
        name = checkpoints.newest()
        epochs: list[str] = [] if name is None else checkpoints.load(name)["epochs"]
        if epochs and epochs[-1] != unit.run.name:
            self.inherited[unit.run.name] = list(epochs)
        for epoch in range(len(epochs) + 1, LAST + 1):
            epochs.append(unit.run.name)
            checkpoints.save_best(0, {"weights": torch.ones(1)})
            checkpoints.save(Cursor(epoch), {"epochs": epochs}, 0)
            if self.source.on_event(unit, epoch_done(unit, epoch)) is not None:
                break
        else:
            unit.predictions.touch()
        self.source.on_exit(unit, 1.0)

    def train_all(self) -> None:
        while (unit := self.source.next_unit()) is not None:
            self.train(unit)


def test_a_child_starts_from_its_parents_checkpoint_of_that_epoch(dataset: Dataset, tmp_path: Path) -> None:
    setting = Setting(dataset, tmp_path, scheduler="pbt")
    trainer = Trainer(setting.start())
    trainer.train_all()
    assert setting.controller.is_finished()
    names = [setting.context.name(number, values) for number, values in enumerate(setting.controller.values)]
    assert setting.controller.origins
    for child, origin in setting.controller.origins.items():
        epochs = trainer.inherited[names[child]]
        assert len(epochs) == origin.epoch
        assert epochs[-1] == names[origin.parent]
    assert not list(tmp_path.rglob("checkpoints"))
    assert {entry.fold for entry in make_ledger(setting.journal.records, 1).units} == {0}


def test_members_that_leave_at_the_same_time_keep_their_checkpoints(dataset: Dataset, tmp_path: Path) -> None:
    setting = Setting(dataset, tmp_path, scheduler="pbt")
    source = setting.start()
    units = [unit for _ in range(4) if (unit := source.next_unit()) is not None]
    for unit in units:
        (unit.folder / "checkpoints").mkdir(parents=True)
        assert source.on_event(unit, epoch_done(unit, 1)) is not None
    for unit in units:
        assert not setting.controller.is_finished()
        source.on_exit(unit, 1.0)
    losers = [number for number, state in enumerate(setting.controller.racing.states) if state.stop_reason]
    remaining = {unit.run.name for unit in units if (unit.folder / "checkpoints").is_dir()}
    assert remaining == {unit.run.name for unit in units} - {units[number].run.name for number in losers}
    assert len(losers) == 2


def test_a_kill_between_the_record_of_a_child_and_its_copy_changes_nothing(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> bool:
        raise KeyboardInterrupt

    setting = Setting(dataset, tmp_path, scheduler="pbt")
    trainer = Trainer(setting.start())
    with monkeypatch.context() as patch:
        patch.setattr("melanoma_dist.train.inherit.inherit", killed)
        with pytest.raises(KeyboardInterrupt):
            trainer.train_all()
    [child] = setting.controller.running
    origin = setting.controller.origins[child.configuration]
    again = Trainer(setting.start())
    again.train_all()
    name = setting.context.name(child.configuration, setting.controller.values[child.configuration])
    assert len(again.inherited[name]) == origin.epoch


def test_a_child_whose_parent_has_lost_its_checkpoint_trains_from_its_start(
    dataset: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    setting = Setting(dataset, tmp_path, scheduler="pbt")
    trainer = Trainer(setting.start())
    while not setting.controller.origins:
        unit = trainer.source.next_unit()
        assert unit is not None
        trainer.train(unit)
    for state in tmp_path.rglob("state.pt"):
        state.write_bytes(b"torn")
    unit = trainer.source.next_unit()
    assert unit is not None
    assert not (unit.folder / "checkpoints").exists()
    assert "no checkpoint of" in capfd.readouterr().out
    before = len(setting.journal.records)
    assert trainer.source.on_event(unit, epoch_done(unit, 1)) is None  # its parent's epoch, repeated
    assert len(setting.journal.records) == before


def test_a_failed_member_is_neither_waited_for_nor_replaced(dataset: Dataset, tmp_path: Path) -> None:
    setting = Setting(dataset, tmp_path, scheduler="pbt")
    trainer = Trainer(setting.start())
    units = [unit for _ in range(4) if (unit := trainer.source.next_unit()) is not None]
    for unit in units[:3]:
        trainer.train(unit)
    assert not setting.controller.origins
    trainer.source.on_failure(units[3], 1.0, TrainingError("out of memory"))
    assert len(setting.controller.origins) == 1  # of the other three
    trainer.train_all()
    assert sum(setting.controller.racing.is_complete(number) for number in range(len(setting.controller.values))) == 3


def test_the_results_say_that_they_are_of_one_fold_and_best_yaml_has_the_path(
    dataset: Dataset, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    setting = Setting(dataset, tmp_path, scheduler="pbt")
    Trainer(setting.start()).train_all()
    (tmp_path / "sweep.json").write_text(json.dumps({"identity": {}}))
    finalized: list[Any] = []
    Outcome(setting.context, setting.controller, setting.journal).finalize(lambda *each: finalized.append(each))
    assert not finalized  # one fold has no out-of-fold predictions of a run
    output = " ".join(capfd.readouterr().out.split())
    page = " ".join((tmp_path / "sweep.html").read_text().split())
    for text in (output, page):
        assert "all members trained fold 0 alone" in text
        assert "train it with all folds, and report that run" in text
    assert "AUC of fold 0 alone (" in output  # the title of the leaderboard
    assert "full cross-validation" not in output + page
    best = setting.controller.racing.incumbent()
    assert best is not None
    values = setting.controller.values[best]
    text = (tmp_path / "best.yaml").read_text()
    assert text.startswith("# A path of hyperparameters that population-based training found on fold 0 alone.\n")
    assert yaml.safe_load(text)["schedule"]["changes"] == values.get("schedule.changes", "none")
    expected = with_values(setting.context.config, {**values, "name": None})
    assert parse_with_file(RunConfig, ["--config", str(tmp_path / "best.yaml")], "") == expected
    assert "Paths" in page
    assert "Importance" not in page

"""Population-based training: who is replaced, by whose child, with which hyperparameters, from which checkpoint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from melanoma_dist.config.changes import parse_changes
from melanoma_dist.config.flags import parse_with_file
from melanoma_dist.config.run import RunConfig, with_values
from melanoma_dist.config.sweep import SweepConfig
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.errors import ConfigError, TrainingError
from melanoma_dist.sweep.command import _check_search
from melanoma_dist.sweep.exploration import Explorer, population_of
from melanoma_dist.sweep.journal import (
    ConfigDropped,
    EpochFinished,
    Journal,
    UnitStarted,
    add_missing_records,
    replay,
)
from melanoma_dist.sweep.ledger import make_ledger
from melanoma_dist.sweep.outcome import Outcome
from melanoma_dist.sweep.population import Population
from melanoma_dist.sweep.space import Values
from melanoma_dist.sweep.work_source import SweepWorkSource
from melanoma_dist.train.checkpoint import Checkpoints, Cursor
from melanoma_dist.train.unit import Unit

from ..samples import config
from .player import EPOCHS, controller_of, play, settings_of
from .test_journal import decisions, whole
from .test_space import space_of
from .test_work_source import EPOCHS as LAST
from .test_work_source import Setting, epoch_done

SPACE = """SPACE = {
    "optimizer.lr": tune.loguniform(1e-4, 1e-1), "model.dropout": tune.choice([0.0, 0.2, 0.5]),
    "model.pooling": tune.choice(["avg", "max"]), "optimizer.weight_decay": tune.uniform(0.0, 0.1),
}
ONLY_IF = {"optimizer.weight_decay": {"model.pooling": ["max"]}}"""
PBT: dict[str, Any] = {"scheduler": "pbt", "searcher": "random", "trials": 8, "grace_epochs": 2}


def next_rate(values: Values, epoch: int, draws: np.random.Generator, others: Sequence[Values]) -> Values | None:
    changes = f"{values.get('schedule.changes', '')},lr=0.{len(others)}@{epoch + 1}".strip(",")
    return {**values, "schedule.changes": changes}


def round_of(population: Population, epoch: int, scores: dict[int, float]) -> None:
    for number, score in scores.items():
        assert population.report(number, epoch, score) is not None
        population.release(number, epoch)


def test_the_worst_quarter_is_replaced_by_children_of_the_best_once_all_wait() -> None:
    population = Population(8, epochs=9, interval=3, factor=4, seed=0, explore=next_rate)
    values: list[Values] = [{} for _ in range(8)]
    for number in range(7):
        population.start(number)
    assert population.report(0, 2, 0.9) is None  # between the rounds, which end after epochs 3 and 6
    round_of(population, 3, {number: 0.5 + number / 100 for number in range(7)})
    assert population.exchange(values) == []  # the last one has not started
    population.start(7)
    assert population.report(7, 3, 0.4) == "pbt: AUC 0.4000 after 3 epochs, waits for the population"
    assert population.exchange(values) == []  # and not left its devices
    population.release(7, 3)
    replacements = population.exchange(values)
    assert [each.loser for each in replacements] == [0, 7]
    assert {each.parent for each in replacements} <= {5, 6}
    assert replacements[0].values == {"schedule.changes": "lr=0.8@4"}
    parent = replacements[1].parent
    assert replacements[1].reason == (
        f"pbt: AUC 0.4000 after 3 epochs is among the lowest 2 of 8; c009 replaces it, a copy of c{parent:03d} with "
        "lr=0.9@4"
    )
    assert population.exchange(values) == []  # once
    order = []
    while (number := population.candidate(last=False)) is not None:
        population.resume(number)
        order.append(number)
    assert order == [8, 9, 6, 5, 4, 3, 2, 1]  # children before their parents, whose next checkpoints replace theirs


def test_a_member_that_ended_is_not_waited_for_and_two_are_a_population() -> None:
    population = Population(4, epochs=9, interval=3, factor=4, seed=0, explore=next_rate)
    for number in range(4):
        population.start(number)
    round_of(population, 3, {0: 0.7, 1: 0.8})
    population.finish(2, 2, 0.9)
    population.finish(3, 1, 0.1)
    assert [(each.loser, each.parent) for each in population.exchange([{}] * 4)] == [(0, 1)]
    for number in (4, 1):
        population.resume(number)
    population.finish(4, 5, 0.1)
    round_of(population, 6, {1: 0.8})
    assert population.exchange([{}] * 5) == []  # nobody to copy
    assert population.candidate(last=False) == 1


def test_one_is_not_replaced_where_nothing_new_can_be_tried() -> None:
    population = Population(2, epochs=9, interval=3, factor=4, seed=0, explore=lambda *_: None)
    for number in range(2):
        population.start(number)
    round_of(population, 3, {0: 0.7, 1: 0.8})
    assert population.exchange([{}] * 2) == []
    assert population.waiting() == [1, 0]


def children(explorer: Explorer, values: Values, count: int, epoch: int = 3) -> list[RunConfig]:
    draws = np.random.default_rng(0)
    earlier: list[Values] = []
    for _ in range(count):
        child = explorer.child(values, epoch, draws, earlier)
        assert child is not None
        assert child not in earlier
        earlier.append(child)
    return [with_values(config(epochs=9), each) for each in earlier]


def test_a_child_has_its_parents_values_and_others_from_the_next_epoch_on(tmp_path: Path) -> None:
    explorer = Explorer(space_of(tmp_path, SPACE), config(epochs=9))
    parent: Values = {"optimizer.lr": 0.01, "model.dropout": 0.2, "model.pooling": "avg"}
    draws = np.random.default_rng(0)
    drawn = [explorer.child(parent, 3, draws, []) for _ in range(60)]
    runs = [with_values(config(epochs=9), values) for values in drawn if values is not None]
    assert len(runs) == 60
    assert all(run.at_epoch(2) == with_values(config(epochs=9), parent) for run in runs)
    factors = [run.at_epoch(3).optimizer.lr / 0.01 for run in runs]
    perturbed = sum(round(factor, 9) in (0.8, 1.25) for factor in factors)
    assert 30 < perturbed < 55  # three in four
    assert all(1e-4 <= run.at_epoch(3).optimizer.lr <= 0.1 for run in runs)
    assert {run.at_epoch(3).model.dropout for run in runs} == {0.0, 0.2, 0.5}
    # Not active with this pooling, and no field that may change during a training:
    assert {(run.at_epoch(8).optimizer.weight_decay, run.at_epoch(8).model.pooling) for run in runs} == {(0.0, "avg")}


def test_a_grandchild_continues_the_path_of_its_parent(tmp_path: Path) -> None:
    explorer = Explorer(space_of(tmp_path, SPACE), config(epochs=9, changes="clip_norm=0.5@2"))
    parent: Values = {"optimizer.lr": 0.1, "model.dropout": 0.5, "schedule.changes": "clip_norm=0.5@2,lr=0.05@3"}
    for run in children(explorer, parent, 20, epoch=5):
        changes = parse_changes(run.schedule.changes)
        assert [str(change) for change in changes[:2]] == ["clip_norm=0.5@2", "lr=0.05@3"]
        assert {change.epoch for change in changes[2:]} == {6}
        assert run.at_epoch(5).optimizer.lr != 0.1


def test_values_stay_within_the_space(tmp_path: Path) -> None:
    narrow = 'SPACE = {"optimizer.lr": tune.uniform(0.0123, 0.0129)}'
    explorer = Explorer(space_of(tmp_path, narrow), config(epochs=9))
    rates = [run.at_epoch(3).optimizer.lr for run in children(explorer, {"optimizer.lr": 0.0125}, 4)]
    assert {0.0123, 0.0129} < set(rates)
    assert all(0.0123 <= rate <= 0.0129 for rate in rates)
    only = Explorer(space_of(tmp_path, 'SPACE = {"model.dropout": tune.choice([0.0, 0.5])}'), config(epochs=9))
    draws = np.random.default_rng(0)
    first = only.child({"model.dropout": 0.0}, 3, draws, [])
    assert first == {"model.dropout": 0.0, "schedule.changes": "dropout=0.5@4"}
    assert only.child({"model.dropout": 0.0}, 3, draws, [first]) is None


@pytest.mark.parametrize(
    ("body", "trials", "message"),
    [
        ('SPACE = {"model.pooling": tune.choice(["avg", "max"])}', 2, "nothing to explore; these may: optimizer.lr, "),
        ('SPACE = {"optimizer.lr": tune.choice([0.1]), "model.dropout": 0.2}', 2, "has no field that varies and may"),
        ('SPACE = {"optimizer.lr": tune.choice([0.1, 0.2])}', 3, "--trials 3: a population starts with different conf"),
    ],
)
def test_a_space_without_a_population_is_refused(body: str, trials: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        _check_search(SweepConfig(scheduler="pbt", trials=trials), space_of(tmp_path, body))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"trials": 1}, "--trials 1: must be at least 2 with --scheduler pbt"),
        ({"trials": 4, "searcher": "optuna"}, "--searcher optuna: must be random with --scheduler pbt"),
        ({"trials": 4, "grace_epochs": 30}, "--grace-epochs 30: must be below --epochs 30"),
    ],
)
def test_settings_keep_their_rules(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SweepConfig(scheduler="pbt", **flags)
    with pytest.raises(ConfigError, match="--trials: give the number of members"):
        SweepConfig(scheduler="pbt", time_budget="8h", space=Path(__file__)).require_complete()
    assert SweepConfig(scheduler="pbt", trials=4).policy()["trials"] == 4


@pytest.mark.parametrize("side_by_side", [1, 3])
def test_a_population_trains_no_epoch_twice_and_keeps_its_size(side_by_side: int, tmp_path: Path) -> None:
    records = whole(tmp_path / "sweep", side_by_side, **PBT)
    epochs = [(record.configuration, record.epoch) for record in records if isinstance(record, EpochFinished)]
    assert len(set(epochs)) == len(epochs) == 8 * EPOCHS
    starts = {record.configuration: record for record in records if isinstance(record, UnitStarted)}
    parents = {number: record.parent for number, record in starts.items() if record.parent is not None}
    dropped = [record for record in records if isinstance(record, ConfigDropped)]
    assert len(parents) == len(dropped) == 2 * 4  # two of eight after epochs 2, 4, 6 and 8
    assert sorted(epoch for _, epoch in epochs) == sorted(list(range(1, EPOCHS + 1)) * 8)
    for child, parent in parents.items():
        own, inherited = starts[child].values, starts[parent].values
        assert own is not None
        assert inherited is not None
        assert own["optimizer.lr"] == inherited["optimizer.lr"]
        assert str(own["schedule.changes"]).startswith(str(inherited.get("schedule.changes", "")))


def test_a_journal_cut_off_after_any_line_leads_to_the_same_decisions(tmp_path: Path) -> None:
    expected = whole(tmp_path / "whole", 1, **PBT)
    lines = (tmp_path / "whole" / "journal.jsonl").read_text().splitlines(keepends=True)
    drops = [number for number, record in enumerate(expected) if isinstance(record, ConfigDropped)]
    exchange = drops[0]  # of two members: cut before, between and after them, and after their children have started
    for cut in (1, exchange - 1, *range(exchange, exchange + 5), drops[-1], len(lines) - 1):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / "journal.jsonl").write_text("".join(lines[:cut]))
        journal, controller = Journal(folder / "journal.jsonl"), controller_of(settings_of(**PBT), folder)
        replay(journal.records, controller, folder / "journal.jsonl")
        add_missing_records(journal, controller)
        play(controller, journal, 1)
        assert decisions(journal.records) == decisions(expected)


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


def test_other_schedulers_have_no_population(tmp_path: Path) -> None:
    assert population_of(SweepConfig(trials=4), space_of(tmp_path, SPACE)) is None

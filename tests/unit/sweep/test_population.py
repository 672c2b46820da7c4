"""Population-based training: who is replaced, and by whose child; the same after a kill."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from melanoma_dist.config.sweep import SweepConfig
from melanoma_dist.errors import ConfigError
from melanoma_dist.sweep.exchange import Exchange, Interval
from melanoma_dist.sweep.journal import ConfigDropped, EpochFinished, Journal, UnitStarted
from melanoma_dist.sweep.population import Population
from melanoma_dist.sweep.replay import add_missing_records, replay
from melanoma_dist.sweep.space import Values

from .player import EPOCHS, controller_of, play, settings_of
from .test_journal import decisions, whole

PBT: dict[str, Any] = {"scheduler": "pbt", "searcher": "random", "trials": 8, "grace_epochs": 2}


def next_rate(parent: int, exchange: Exchange) -> Values | None:
    values = exchange.values[parent]
    changes = f"{values.get('schedule.changes', '')},lr=0.{len(exchange.values)}@{exchange.epoch + 1}".strip(",")
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


def test_an_exchange_has_the_intervals_so_far_and_who_trains_the_next_one() -> None:
    exchanges: list[tuple[list[Interval], list[int], dict[int, float]]] = []

    def explore(parent: int, exchange: Exchange) -> Values | None:
        exchanges.append((list(exchange.history), list(exchange.continuing), dict(exchange.scores)))
        return None if len(exchanges) == 1 else next_rate(parent, exchange)

    population = Population(4, epochs=9, interval=3, factor=2, seed=0, explore=explore, name="pb2")
    for number in range(4):
        population.start(number)
    round_of(population, 3, {0: 0.5, 1: 0.6, 2: 0.7, 3: 0.8})
    (replacement,) = population.exchange([{}] * 4)
    assert replacement.loser == 1
    assert replacement.reason.startswith("pb2: AUC 0.6000 after 3 epochs is among the lowest 2 of 4; ")
    first = [Interval(number, 0, 0.0, 0.5 + number / 10) for number in range(4)]
    assert exchanges[0] == (first, [3, 2], {0: 0.5, 1: 0.6, 2: 0.7, 3: 0.8})
    assert exchanges[1][1] == [3, 2, 0]  # a loser without a child stays
    for number in (4, 3, 2, 0):
        population.resume(number)
    round_of(population, 6, {0: 0.5, 2: 0.9, 3: 0.8, 4: 0.7})
    population.exchange([{}] * 4 + [replacement.values])
    own = {2: 0.7, 3: 0.8}[replacement.parent]
    second = [Interval(0, 3, 0.5, 0.5), Interval(2, 3, 0.7, 0.9), Interval(3, 3, 0.8, 0.8), Interval(4, 3, own, 0.7)]
    assert exchanges[2] == ([*first, *second], [2, 3], {0: 0.5, 2: 0.9, 3: 0.8, 4: 0.7})
    assert set(exchanges[3][2]) == {0, 2, 3, 4, 5}  # a child has the score of its parent
    assert exchanges[3][1] == [2, 3, 5]


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


@pytest.mark.parametrize(("side_by_side", "scheduler"), [(1, "pbt"), (3, "pbt"), (3, "pb2")])
def test_a_population_trains_no_epoch_twice_and_keeps_its_size(
    side_by_side: int, scheduler: str, tmp_path: Path
) -> None:
    records = whole(tmp_path / "sweep", side_by_side, **{**PBT, "scheduler": scheduler})
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


@pytest.mark.parametrize("scheduler", ["pbt", "pb2"])
def test_a_journal_cut_off_after_any_line_leads_to_the_same_decisions(scheduler: str, tmp_path: Path) -> None:
    chosen = {**PBT, "scheduler": scheduler}
    expected = whole(tmp_path / "whole", 1, **chosen)
    lines = (tmp_path / "whole" / "journal.jsonl").read_text().splitlines(keepends=True)
    drops = [number for number, record in enumerate(expected) if isinstance(record, ConfigDropped)]
    exchange = drops[0]  # of two members: cut before, between and after them, and after their children have started
    for cut in (1, exchange - 1, *range(exchange, exchange + 5), drops[-1], len(lines) - 1):
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / "journal.jsonl").write_text("".join(lines[:cut]))
        journal, controller = Journal(folder / "journal.jsonl"), controller_of(settings_of(**chosen), folder)
        replay(journal.records, controller, folder / "journal.jsonl")
        add_missing_records(journal, controller)
        play(controller, journal, 1)
        assert decisions(journal.records) == decisions(expected)

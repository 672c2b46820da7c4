from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melanoma_dist.sweep.racing import Drop, FoldRacing, FoldTrial

FOLDS = 3


def race_of(*aucs: list[float], rule: str = "forgiving") -> FoldRacing:
    """A race in which configurations have finished these folds, one after the other."""
    race = FoldRacing(FOLDS, rule)  # type: ignore[arg-type]
    for number, folds in enumerate(aucs):
        race.enter()
        for fold, auc in enumerate(folds):
            race.finish(FoldTrial(number, fold), auc)
    return race


def test_a_configuration_begins_with_its_first_fold() -> None:
    race = FoldRacing(FOLDS, "forgiving")
    assert [race.enter(), race.enter()] == [FoldTrial(0, 0), FoldTrial(1, 0)]


def test_nothing_goes_before_a_new_configuration_while_none_has_finished_a_fold() -> None:
    race = FoldRacing(FOLDS, "forgiving")
    place = race.enter()
    assert race.next({place}) is None
    assert race.next_left({place}) is None


def test_the_leader_goes_on_before_a_new_configuration_begins() -> None:
    race = race_of([0.7], [0.8], [0.75])
    assert race.next(()) == FoldTrial(1, 1)
    assert race.next({FoldTrial(1, 1)}) is None  # one fold of it at a time, as long as something else may run


def test_others_wait_until_nothing_new_is_to_begin_and_the_best_goes_first() -> None:
    race = race_of([0.7], [0.8], [0.75])
    running = {FoldTrial(1, 1)}
    assert race.next_left(running) == FoldTrial(2, 1)
    running |= {FoldTrial(2, 1)}
    assert race.next_left(running) == FoldTrial(0, 1)


def test_folds_of_one_configuration_run_side_by_side_when_nothing_else_is_left() -> None:
    race = race_of([0.8])
    running = {FoldTrial(0, 1)}
    assert race.next(running) is None
    assert race.next_left(running) == FoldTrial(0, 2)
    assert race.next_left(running | {FoldTrial(0, 2)}) is None


def test_a_complete_leader_lets_new_ones_begin() -> None:
    assert race_of([0.8, 0.8, 0.8], [0.79]).next(()) is None


def test_the_forgiving_rule_compares_with_the_worst_fold_of_the_incumbent() -> None:
    race = race_of([0.80, 0.90, 0.85], [0.80], [0.801])
    assert race.incumbent() == 0
    why = "mean AUC 0.8000 over 1 fold is not above 0.8000, c000's worst fold"
    assert (race.runners[1].out, race.runners[2].out) == (why, None)


def test_the_aggressive_rule_compares_with_its_mean() -> None:
    race = race_of([0.80, 0.90, 0.85], [0.86], rule="aggressive")
    assert race.finish(FoldTrial(1, 1), 0.83) == [
        Drop(1, "mean AUC 0.8450 over 2 folds is not above 0.8500, c000's mean"),
    ]


def test_without_a_rule_nothing_is_dropped() -> None:
    assert race_of([0.9, 0.9, 0.9], [0.1], rule="none").runners[1].out is None


def test_a_new_incumbent_drops_those_that_waited() -> None:
    race = race_of([0.6], [0.7, 0.8])
    assert race.finish(FoldTrial(1, 2), 0.75) == [
        Drop(0, "mean AUC 0.6000 over 1 fold is not above 0.7000, c001's worst fold")
    ]


def test_the_incumbent_is_the_complete_one_with_the_highest_mean() -> None:
    assert race_of([0.7, 0.7, 0.7], [0.9, 0.9], [0.8, 0.8, 0.8]).incumbent() == 2
    assert race_of([0.8, 0.8, 0.8], [0.8, 0.8, 0.8]).incumbent() == 0  # the earlier of equals
    assert race_of([0.9]).incumbent() is None


def test_one_that_left_is_never_started_again() -> None:
    race = race_of([0.7], [0.8])
    race.leave(1, "failed: why")
    assert race.next(()) == FoldTrial(0, 1)


@pytest.mark.parametrize("rule", ["forgiving", "aggressive", "none"])
@given(data=st.data())
@settings(deadline=None)  # machines are shared
def test_every_race_ends_and_its_winner_is_complete(rule: str, data: st.DataObject) -> None:
    """Whatever the AUCs, and however many units run at a time, each unit runs once and the best mean of all wins."""
    auc = st.floats(0.0, 1.0, allow_nan=False)
    table = data.draw(st.lists(st.lists(auc, min_size=FOLDS, max_size=FOLDS), min_size=1, max_size=6))
    slots = data.draw(st.integers(1, 4))
    race = FoldRacing(FOLDS, rule)  # type: ignore[arg-type]
    running: list[FoldTrial] = []
    started: list[FoldTrial] = []
    entered = 0
    while True:
        while len(running) < slots:
            place = race.next(running)
            if place is None and entered < len(table):
                place, entered = race.enter(), entered + 1
            place = place or race.next_left(running)
            if place is None:
                break
            running.append(place)
            started.append(place)
        if not running:
            break
        place = running.pop(data.draw(st.integers(0, len(running) - 1)))
        if race.runners[place.configuration].out is None:
            race.finish(place, table[place.configuration][place.fold])
    assert len(started) == len(set(started))
    winner = race.incumbent()
    assert winner is not None
    assert all(race.complete(number) or runner.out for number, runner in enumerate(race.runners))
    complete = [sum(table[number]) for number in range(len(table)) if race.complete(number)]
    assert sum(table[winner]) >= max(complete) - 1e-9
    if rule == "none":
        assert len(started) == FOLDS * len(table)

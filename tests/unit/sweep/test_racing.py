from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melanoma_dist.sweep.racing import Drop, FoldRacing, FoldTrial

FOLDS = 3


def racing_of(*aucs: list[float], rule: str = "forgiving") -> FoldRacing:
    """Racing in which configurations have finished these folds, one after the other."""
    racing = FoldRacing(FOLDS, rule)  # type: ignore[arg-type]
    for number, folds in enumerate(aucs):
        racing.add()
        for fold, auc in enumerate(folds):
            racing.finish(FoldTrial(number, fold), auc)
    return racing


def test_a_configuration_starts_with_its_first_fold() -> None:
    racing = FoldRacing(FOLDS, "forgiving")
    assert [racing.add(), racing.add()] == [FoldTrial(0, 0), FoldTrial(1, 0)]


def test_nothing_goes_before_a_new_configuration_while_none_has_finished_a_fold() -> None:
    racing = FoldRacing(FOLDS, "forgiving")
    trial = racing.add()
    assert racing.next({trial}) is None
    assert racing.next_remaining({trial}) is None


def test_the_next_fold_of_the_leader_comes_before_a_new_configuration() -> None:
    racing = racing_of([0.7], [0.8], [0.75])
    assert racing.next(()) == FoldTrial(1, 1)
    assert racing.next({FoldTrial(1, 1)}) is None  # one fold of it at a time, as long as something else may run


def test_others_wait_until_no_new_configuration_can_start_and_the_best_goes_first() -> None:
    racing = racing_of([0.7], [0.8], [0.75])
    running = {FoldTrial(1, 1)}
    assert racing.next_remaining(running) == FoldTrial(2, 1)
    running |= {FoldTrial(2, 1)}
    assert racing.next_remaining(running) == FoldTrial(0, 1)


def test_folds_of_one_configuration_run_side_by_side_when_nothing_else_is_left() -> None:
    racing = racing_of([0.8])
    running = {FoldTrial(0, 1)}
    assert racing.next(running) is None
    assert racing.next_remaining(running) == FoldTrial(0, 2)
    assert racing.next_remaining(running | {FoldTrial(0, 2)}) is None


def test_after_a_complete_leader_new_configurations_start() -> None:
    assert racing_of([0.8, 0.8, 0.8], [0.79]).next(()) is None


def test_the_forgiving_rule_compares_with_the_worst_fold_of_the_incumbent() -> None:
    racing = racing_of([0.80, 0.90, 0.85], [0.80], [0.801])
    assert racing.incumbent() == 0
    why = "mean AUC 0.8000 over 1 fold is not above 0.8000, c000's worst fold"
    assert (racing.states[1].stop_reason, racing.states[2].stop_reason) == (why, None)


def test_the_aggressive_rule_compares_with_its_mean() -> None:
    racing = racing_of([0.80, 0.90, 0.85], [0.86], rule="aggressive")
    assert racing.finish(FoldTrial(1, 1), 0.83) == [
        Drop(1, "mean AUC 0.8450 over 2 folds is not above 0.8500, c000's mean"),
    ]


def test_without_a_rule_nothing_is_dropped() -> None:
    assert racing_of([0.9, 0.9, 0.9], [0.1], rule="none").states[1].stop_reason is None


def test_a_new_incumbent_drops_those_that_waited() -> None:
    racing = racing_of([0.6], [0.7, 0.8])
    assert racing.finish(FoldTrial(1, 2), 0.75) == [
        Drop(0, "mean AUC 0.6000 over 1 fold is not above 0.7000, c001's worst fold")
    ]


def test_the_incumbent_is_the_complete_one_with_the_highest_mean() -> None:
    assert racing_of([0.7, 0.7, 0.7], [0.9, 0.9], [0.8, 0.8, 0.8]).incumbent() == 2
    assert racing_of([0.8, 0.8, 0.8], [0.8, 0.8, 0.8]).incumbent() == 0  # the earlier of equals
    assert racing_of([0.9]).incumbent() is None


def test_a_stopped_configuration_is_never_started_again() -> None:
    racing = racing_of([0.7], [0.8])
    racing.stop(1, "failed: why")
    assert racing.next(()) == FoldTrial(0, 1)


@pytest.mark.parametrize("rule", ["forgiving", "aggressive", "none"])
@given(data=st.data())
@settings(deadline=None)  # machines are shared
def test_every_race_ends_and_its_winner_is_complete(rule: str, data: st.DataObject) -> None:
    """Whatever the AUCs, and however many units run at a time, each unit runs once and the best mean of all wins."""
    auc = st.floats(0.0, 1.0, allow_nan=False)
    table = data.draw(st.lists(st.lists(auc, min_size=FOLDS, max_size=FOLDS), min_size=1, max_size=6))
    slots = data.draw(st.integers(1, 4))
    racing = FoldRacing(FOLDS, rule)  # type: ignore[arg-type]
    running: list[FoldTrial] = []
    started: list[FoldTrial] = []
    entered = 0
    while True:
        while len(running) < slots:
            trial = racing.next(running)
            if trial is None and entered < len(table):
                trial, entered = racing.add(), entered + 1
            trial = trial or racing.next_remaining(running)
            if trial is None:
                break
            running.append(trial)
            started.append(trial)
        if not running:
            break
        trial = running.pop(data.draw(st.integers(0, len(running) - 1)))
        if racing.states[trial.configuration].stop_reason is None:
            racing.finish(trial, table[trial.configuration][trial.fold])
    assert len(started) == len(set(started))
    winner = racing.incumbent()
    assert winner is not None
    assert all(racing.is_complete(number) or state.stop_reason for number, state in enumerate(racing.states))
    complete = [sum(table[number]) for number in range(len(table)) if racing.is_complete(number)]
    assert sum(table[winner]) >= max(complete) - 1e-9
    if rule == "none":
        assert len(started) == FOLDS * len(table)

"""Ray Tune's searchers and schedulers, called without a cluster."""

from __future__ import annotations

import importlib.util
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from melanoma_dist.config.run import RunConfig, ScheduleConfig
from melanoma_dist.config.sweep import SweepConfig
from melanoma_dist.errors import ConfigError
from melanoma_dist.sweep.controller import Controller
from melanoma_dist.sweep.halving import Halving
from melanoma_dist.sweep.journal import Journal
from melanoma_dist.sweep.racing import FoldRacing
from melanoma_dist.sweep.search import Searcher, Stopper, build_searcher, grid_size, samples
from melanoma_dist.sweep.space import Values
from melanoma_dist.sweep.tune_searcher import PACKAGES

from .player import FOLDS, play, settings_of
from .test_space import space_of

GRID = 'SPACE = {"model.pooling": tune.choice(["avg", "max"]), "model.hidden": tune.grid_search([0, 64, 128])}'
RANGES = 'SPACE = {"optimizer.lr": tune.loguniform(1e-5, 1e-1), "model.pooling": tune.choice(["avg", "max"])}'
LEARNERS = [
    pytest.param(
        kind,
        marks=pytest.mark.skipif(
            None in map(importlib.util.find_spec, packages), reason=f"not installed: {', '.join(packages)}"
        ),
    )
    for kind, packages in PACKAGES.items()
]


def searcher(folder: Path, body: str, kind: str, seed: int = 0) -> Searcher:
    settings = SweepConfig(searcher=kind)  # type: ignore[arg-type]
    return build_searcher(settings, space_of(folder, body), seed)


def suggestions(source: Searcher, count: int) -> list[dict[str, Any]]:
    draws = (source.suggest() for _ in range(count))
    return [values for values in draws if values is not None]


@pytest.mark.parametrize("kind", ["random", *LEARNERS])
def test_a_seed_gives_the_same_configurations_and_another_seed_others(kind: str, tmp_path: Path) -> None:
    first, again, other = (suggestions(searcher(tmp_path, RANGES, kind, seed), 5) for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert all(1e-5 <= values["optimizer.lr"] <= 1e-1 for values in first)


def test_a_grid_is_every_combination_once_in_an_order_drawn_from_the_seed(tmp_path: Path) -> None:
    drawn = suggestions(searcher(tmp_path, GRID, "grid"), 20)
    pairs = [(values["model.pooling"], values["model.hidden"]) for values in drawn]
    assert sorted(pairs) == sorted(itertools.product(["avg", "max"], [0, 64, 128]))
    assert pairs != [
        (values["model.pooling"], values["model.hidden"])
        for values in suggestions(searcher(tmp_path, GRID, "grid", seed=1), 20)
    ]
    assert grid_size(RunConfig(), space_of(tmp_path, GRID)) == 6


@pytest.mark.parametrize("kind", ["random", *LEARNERS])
def test_no_configuration_comes_twice_and_an_exhausted_space_ends(kind: str, tmp_path: Path) -> None:
    body = 'SPACE = {"model.pooling": tune.choice(["avg", "max", "gem"])}'
    source = searcher(tmp_path, body, kind)
    poolings = [values["model.pooling"] for values in suggestions(source, 10)]
    assert sorted(poolings) == ["avg", "gem", "max"]
    assert source.suggest() is None


def test_an_inactive_field_makes_no_second_configuration(tmp_path: Path) -> None:
    body = (
        'SPACE = {"loss.loss": tune.choice(["bce"]), "loss.focal_gamma": tune.uniform(1, 3)}\n'
        'ONLY_IF = {"loss.focal_gamma": {"loss.loss": ["focal"]}}'
    )
    assert suggestions(searcher(tmp_path, body, "random"), 5) == [{"loss.loss": "bce"}]


def test_values_may_depend_on_others_and_are_plain_python_values(tmp_path: Path) -> None:
    body = (
        'SPACE = {"model.hidden": tune.choice([0, 64]),'
        ' "model.dropout": tune.sample_from(lambda config: 0.5 if config["model.hidden"] else 0.0)}'
    )
    for values in suggestions(searcher(tmp_path, body, "random"), 2):
        assert values["model.dropout"] == (0.5 if values["model.hidden"] else 0.0)
        assert type(values["model.hidden"]) is int


def test_a_searcher_refuses_what_it_cannot_search(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"optimizer.lr: is a range, and --searcher grid needs choices"):
        grid_size(RunConfig(), space_of(tmp_path, RANGES))
    with pytest.raises(ConfigError, match=r"model.hidden: cannot be searched by optuna"):
        searcher(tmp_path, GRID, "optuna")


@pytest.mark.parametrize("learner", LEARNERS)
def test_a_searcher_learns_from_reports_and_replays_exactly(learner: str, tmp_path: Path) -> None:
    """AUC falls with the distance from lr 1e-3: it gets nearer to it than a random search."""
    distances: dict[str, float] = {}
    values_by_call: list[list[object]] = []
    for kind in ("random", learner, learner):
        source = searcher(tmp_path, RANGES, kind)
        tried, all_values = [], []
        for number in range(40):
            np.random.random(7)  # others draw from the global generators too
            values = source.suggest()
            assert values is not None
            distance = abs(np.log10(values["optimizer.lr"]) + 3)
            source.report(number, 0.9 - 0.1 * distance, folds=0, epoch=3)
            tried.append(distance)
            all_values.append(values)
        distances[kind] = float(np.median(tried[-15:]))
        values_by_call.append(all_values)
    assert distances[learner] < 0.5 * distances["random"]
    assert values_by_call[1] == values_by_call[2]


class _Spy:
    """A searcher that records its reports."""

    def __init__(self, rates: list[float]) -> None:
        self._rates = iter(rates)
        self.reports: list[tuple[int, int, int]] = []

    def suggest(self) -> Values | None:
        return {"optimizer.lr": next(self._rates), "model.pooling": "avg"}

    def report(self, configuration: int, score: float | None, folds: int, epoch: int) -> None:
        assert score is not None
        self.reports.append((configuration, folds, epoch))


def test_a_searcher_is_told_how_much_of_a_training_a_score_is_of(tmp_path: Path) -> None:
    settings = settings_of(trials=5, fold_race="aggressive")
    spy = _Spy([1e-3, 1e-5, 5e-4, 2e-5, 1e-1])
    racing = FoldRacing(FOLDS, "aggressive")
    play(Controller(spy, Stopper(settings), Halving.of(settings), racing, 5), Journal(tmp_path / "journal.jsonl"), 1)
    in_first_fold = {configuration: epoch for configuration, folds, epoch in spy.reports if folds == 0}
    assert set(in_first_fold.values()) <= {1, 4}  # the rungs
    of_folds = {configuration: folds for configuration, folds, epoch in spy.reports if folds}
    assert of_folds == {number: len(state.scores) for number, state in enumerate(racing.states) if state.scores}
    assert max(of_folds.values()) == FOLDS
    assert min(of_folds.values()) < FOLDS


def test_a_searcher_whose_package_is_not_installed_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"--searcher hyperopt: the package hyperopt is not installed.*pip install"):
        searcher(tmp_path, RANGES, "hyperopt")
    with pytest.raises(ConfigError, match=r"the package hpbandster is not installed.*pip install hpbandster ConfigS"):
        searcher(tmp_path, RANGES, "bohb")


def stopper(scheduler: str, epochs: int = 9, **values: Any) -> Stopper:
    run = RunConfig(schedule=ScheduleConfig(epochs=epochs))
    return Stopper(SweepConfig(scheduler=scheduler, run=run, **{"reduction_factor": 3.0, **values}))  # type: ignore[arg-type]


def stops(stopping: Stopper, curves: list[list[float]]) -> list[int | None]:
    """The epoch after which each configuration is stopped; they are trained one after the other."""
    epochs: list[int | None] = []
    for number, curve in enumerate(curves):
        stopping.start(number)
        best = float("-inf")
        for epoch, auc in enumerate(curve, 1):
            best = max(best, auc)
            if stopping.report(number, epoch, best) is not None:
                epochs.append(epoch)
                break
        else:
            stopping.finish(number, len(curve), best)
            epochs.append(None)
    return epochs


def test_asha_stops_at_its_rungs_all_but_the_best_third() -> None:
    flat = [[auc] * 9 for auc in (0.70, 0.60, 0.80, 0.75)]
    # The third is the best so far and passes; 0.75 is not above the 2/3 quantile of (0.70, 0.60, 0.80) at epoch 1.
    assert stops(stopper("asha", grace_epochs=1), [*flat[:3], [0.72] * 9]) == [None, 1, None, 1]
    late = [0.80, 0.80, 0.80] + [0.80] * 6
    assert stops(stopper("asha", grace_epochs=1), [[0.7, 0.7, 0.9] + [0.9] * 6, late]) == [None, 3]


def test_the_reason_names_scheduler_auc_and_epoch() -> None:
    stopping = stopper("asha", grace_epochs=1)
    assert stops(stopping, [[0.7] * 9]) == [None]
    stopping.start(1)
    assert stopping.report(1, 1, 0.61234) == "asha: best AUC 0.6123 after 1 epoch is not among the best 1 in 3 so far"


def test_no_scheduler_stops_in_the_grace_period_or_at_the_end() -> None:
    for scheduler in ("asha", "hyperband", "median"):
        stopping = stopper(scheduler, grace_epochs=3)
        epochs = stops(stopping, [[0.9 - 0.1 * number] * 9 for number in range(6)])
        assert all(epoch is None or 3 <= epoch < 9 for epoch in epochs)
        assert any(epoch is not None for epoch in epochs)


def test_none_stops_nothing() -> None:
    assert stops(stopper("none"), [[0.9] * 9, [0.1] * 9]) == [None, None]


def test_the_median_rule_stops_below_the_median_of_running_means() -> None:
    stopping = stopper("median", grace_epochs=2)
    assert stops(stopping, [[0.7] * 9, [0.8] * 9, [0.9] * 9, [0.75] * 9, [0.85] * 9]) == [None, None, None, 2, None]


def test_a_fold_that_patience_ended_still_counts_at_later_rungs() -> None:
    assert stops(stopper("asha", grace_epochs=3), [[0.9, 0.9], [0.8] * 9]) == [None, 3]


def test_hyperbands_brackets_depend_on_the_seed_alone() -> None:
    curves = [[0.9 - 0.01 * number] * 9 for number in range(12)]
    first = stops(stopper("hyperband", grace_epochs=1), curves)
    np.random.seed(123)
    assert stops(stopper("hyperband", grace_epochs=1), curves) == first
    assert {1, 3} <= set(first)  # some brackets start to stop later


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        ({"trials": 0}, "--trials 0: must be 1 to 100000"),
        ({"time_budget": "8 hours"}, "--time-budget 8 hours: must be a number and a unit"),
        ({"time_budget": "0h"}, "--time-budget 0h: must be a number and a unit"),
        ({"grace_epochs": 30}, "--grace-epochs 30: must be below --epochs 30"),
        ({"reduction_factor": 1.0}, "--reduction-factor 1.0: must be above 1"),
    ],
)
def test_settings_keep_their_rules(flags: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        SweepConfig(**flags)


@pytest.mark.parametrize(
    ("text", "seconds"), [("45s", 45), ("90m", 5400), ("1.5h", 5400), ("2d", 172800), (None, None)]
)
def test_budgets_are_read(text: str | None, seconds: float | None) -> None:
    assert SweepConfig(time_budget=text).budget_seconds() == seconds


def test_functions_that_draw_from_the_global_generators_draw_the_same_again(tmp_path: Path) -> None:
    body = (
        "import random\nimport numpy as np\n"
        'SPACE = {"optimizer.lr": tune.sample_from(lambda config: float(10 ** np.random.uniform(-4, -2))),'
        ' "model.dropout": tune.sample_from(lambda config: random.random() / 2)}'
    )
    first = suggestions(searcher(tmp_path, body, "random"), 4)
    np.random.random(7)
    assert suggestions(searcher(tmp_path, body, "random"), 4) == first
    assert len({values["optimizer.lr"] for values in first}) == 4


def test_the_grid_size_ignores_inactive_fields(tmp_path: Path) -> None:
    body = (
        'SPACE = {"loss.loss": tune.choice(["bce", "focal"]), "loss.focal_gamma": tune.choice([1.0, 2.0])}\n'
        'ONLY_IF = {"loss.focal_gamma": {"loss.loss": ["focal"]}}'
    )
    assert grid_size(RunConfig(), space_of(tmp_path, body)) == 3
    assert len(suggestions(searcher(tmp_path, body, "grid"), 9)) == 3


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (
            'SPACE = {"optimizer.lr": tune.qloguniform(1e-4, 1e-1, 1e-4)}',
            "optimizer.lr: has steps, which optuna ignores",
        ),
        ('SPACE = {"optimizer.lr": 0.1}', "SPACE: has no field that varies"),
    ],
)
def test_a_space_that_optuna_cannot_search_is_refused(body: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=complaint):
        searcher(tmp_path, body, "optuna")


def test_an_exception_in_a_function_of_the_space_is_a_config_error(tmp_path: Path) -> None:
    space = space_of(tmp_path, 'SPACE = {"optimizer.lr": tune.sample_from(lambda config: 1 / 0)}')
    with pytest.raises(ConfigError, match="drawing values failed"):
        next(samples(space))

"""PB2: a Gaussian process proposes the hyperparameters of children."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from melanoma_dist.config.run import with_values
from melanoma_dist.config.sweep import SweepConfig
from melanoma_dist.errors import ConfigError
from melanoma_dist.sweep import bandit
from melanoma_dist.sweep.bandit import BanditExplorer, choose_model, highest_bound
from melanoma_dist.sweep.command import _check_search
from melanoma_dist.sweep.exchange import Exchange, Interval
from melanoma_dist.sweep.space import Values

from ..samples import config
from .test_space import space_of

SPACE = """SPACE = {
    "optimizer.lr": tune.loguniform(1e-4, 1e-1), "model.dropout": tune.choice([0.0, 0.2, 0.5]),
    "model.pooling": tune.choice(["avg", "max"]), "optimizer.weight_decay": tune.uniform(0.0, 0.1),
}
ONLY_IF = {"optimizer.weight_decay": {"model.pooling": ["max"]}}"""
BEST = -2.0  # the decimal logarithm of the rate that helps most, in all intervals


def exchange_of(rates: list[float], seed: int = 0) -> Exchange:
    """After two intervals of three epochs of members with these rates, which gain more the nearer they are to BEST."""
    values: list[Values] = [{"optimizer.lr": rate, "model.dropout": 0.2, "model.pooling": "avg"} for rate in rates]
    gains = [0.1 - 0.03 * abs(np.log10(rate) - BEST) for rate in rates]
    history = [Interval(number, 0, 0.0, 0.5 + gain) for number, gain in enumerate(gains)]
    history += [Interval(number, 3, 0.5 + gain, 0.5 + 2 * gain) for number, gain in enumerate(gains)]
    scores = {number: 0.5 + 2 * gain for number, gain in enumerate(gains)}
    return Exchange(6, scores, history, np.random.default_rng(seed), values, list(range(len(rates))))


def rates_of_children(explorer: BanditExplorer, exchange: Exchange, parent: int, count: int) -> list[float]:
    for _ in range(count):
        child = explorer.child(parent, exchange)
        assert child is not None
        exchange.scores[len(exchange.values)] = exchange.scores[parent]
        exchange.continuing.append(len(exchange.values))
        exchange.values.append(child)
    runs = [with_values(config(epochs=12), values) for values in exchange.values[-count:]]
    assert all(run.at_epoch(5).optimizer.lr == exchange.values[parent]["optimizer.lr"] for run in runs)
    return [run.at_epoch(6).optimizer.lr for run in runs]


def test_children_get_rates_that_helped(tmp_path: Path) -> None:
    explorer = BanditExplorer(space_of(tmp_path, SPACE), config(epochs=12))
    members = np.geomspace(1e-4, 1e-1, 12).tolist()
    first = [rates_of_children(explorer, exchange_of(members, seed), 5, 1)[0] for seed in range(10)]
    distances = [abs(np.log10(rate) - BEST) for rate in first]
    assert max(distances) < 0.6  # of a scale of 3
    assert float(np.median(distances)) < 0.3


def test_one_sided_knowledge_is_completed(tmp_path: Path) -> None:
    """All members have low rates, and the highest gain most: children go beyond it, and do not crowd."""
    explorer = BanditExplorer(space_of(tmp_path, SPACE), config(epochs=12))
    rates = rates_of_children(explorer, exchange_of(np.geomspace(1e-4, 5e-4, 6).tolist()), 5, 3)
    assert min(rates) > 5e-4
    assert max(rates) > 2e-3
    assert len({round(np.log10(rate), 1) for rate in rates}) == 3


def test_only_active_fields_change_and_choices_are_perturbed(tmp_path: Path) -> None:
    explorer = BanditExplorer(space_of(tmp_path, SPACE), config(epochs=12))
    exchange = exchange_of([1e-3, 1e-2, 3e-2])
    children = [explorer.child(1, exchange) for _ in range(12)]
    runs = [with_values(config(epochs=12), child) for child in children if child is not None]
    assert {run.at_epoch(11).model.dropout for run in runs} == {0.0, 0.2, 0.5}
    assert {(run.at_epoch(11).optimizer.weight_decay, run.at_epoch(11).model.pooling) for run in runs} == {(0.0, "avg")}
    exchange.values[1] = {**exchange.values[1], "model.pooling": "max", "optimizer.weight_decay": 0.05}
    child = explorer.child(1, exchange)
    assert child is not None
    assert 0.0 <= with_values(config(epochs=12), child).at_epoch(6).optimizer.weight_decay <= 0.1


def test_the_same_exchange_has_the_same_child(tmp_path: Path) -> None:
    explorer = BanditExplorer(space_of(tmp_path, SPACE), config(epochs=12))
    assert explorer.child(0, exchange_of([1e-3, 1e-2])) == explorer.child(0, exchange_of([1e-3, 1e-2]))


def test_a_change_of_the_run_itself_may_leave_the_range(tmp_path: Path) -> None:
    body = 'SPACE = {"optimizer.weight_decay": tune.loguniform(1e-6, 1e-1)}'
    explorer = BanditExplorer(space_of(tmp_path, body), config(epochs=12, changes="weight_decay=0@4"))
    values: list[Values] = [{"optimizer.weight_decay": 1e-3}, {"optimizer.weight_decay": 1e-2}]
    history = [Interval(number, start, 0.5, 0.6 + number / 10) for start in (0, 3) for number in (0, 1)]
    child = explorer.child(1, Exchange(6, {0: 0.6, 1: 0.7}, history, np.random.default_rng(0), values, [1]))
    assert child is not None
    assert 1e-6 <= with_values(config(epochs=12), child).at_epoch(6).optimizer.weight_decay <= 1e-1


def test_members_with_equal_scores_teach_nothing_and_break_nothing(tmp_path: Path) -> None:
    explorer = BanditExplorer(space_of(tmp_path, SPACE), config(epochs=12))
    exchange = exchange_of([1e-2] * 4)
    assert explorer.child(0, exchange) is not None


def test_the_bound_falls_with_what_is_about_to_be_tried_and_old_gains_count_less() -> None:
    def at(time: float, field: float) -> list[float]:
        return [time, 0.0, field]

    points = np.array([at(0.5, field) for field in np.linspace(0, 1, 21)])
    known = np.array([at(0.4, 0.0), at(0.4, 0.5), at(0.4, 1.0)])
    nothing = np.empty((0, 3))
    assert highest_bound(choose_model(known, np.array([-1.0, -1.0, 1.0])), nothing, points) > 15
    crowded = np.array([at(0.5, field) for field in (0.9, 0.95, 1.0)] * 5)
    assert highest_bound(choose_model(known, np.array([0.1, 0.1, 0.2])), crowded, points) < 15
    times = np.array([0.0] * 6 + [0.4] * 6)
    fields = np.array([0.1, 0.2, 0.3, 0.7, 0.8, 0.9] * 2)
    gains = np.array([1.0, 1.1, 1.0, -1.0, -1.1, -1.0, -1.0, -1.1, -1.0, 1.0, 1.1, 1.0])  # they change sides
    changed = np.column_stack([times, np.zeros(12), fields])
    assert highest_bound(choose_model(changed, gains), nothing, points) > 10
    assert highest_bound(choose_model(changed, -gains), nothing, points) < 10


def test_a_space_of_choices_is_refused(tmp_path: Path) -> None:
    body = 'SPACE = {"optimizer.lr": tune.choice([0.1, 0.2]), "loss.focal_gamma": tune.uniform(1, 2)}'
    with pytest.raises(ConfigError, match="SPACE: pb2 learns about ranges, and only choices may change"):
        _check_search(SweepConfig(scheduler="pb2", trials=2), space_of(tmp_path, body))
    with pytest.raises(ConfigError, match="--searcher optuna: must be random with --scheduler pb2"):
        SweepConfig(scheduler="pb2", trials=4, searcher="optuna")


def test_an_exchange_chooses_its_model_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    monkeypatch.setattr(bandit, "choose_model", lambda *known: [sizes.append(len(known[0])), choose_model(*known)][1])
    explorer = BanditExplorer(space_of(tmp_path, SPACE), config(epochs=12))
    rates_of_children(explorer, exchange_of([1e-3, 1e-2, 3e-2]), 1, 3)
    rates_of_children(explorer, exchange_of([1e-3, 1e-2]), 1, 2)
    assert sizes == [6, 4]

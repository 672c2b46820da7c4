"""The hyperparameters of a child in population-based training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from melanoma_dist.config.changes import parse_changes
from melanoma_dist.config.run import RunConfig, with_values
from melanoma_dist.config.sweep import SweepConfig
from melanoma_dist.errors import ConfigError
from melanoma_dist.sweep.command import _check_search
from melanoma_dist.sweep.exchange import Exchange
from melanoma_dist.sweep.exploration import Explorer
from melanoma_dist.sweep.population import Population
from melanoma_dist.sweep.space import Values

from ..samples import config
from .test_space import space_of

SPACE = """SPACE = {
    "optimizer.lr": tune.loguniform(1e-4, 1e-1), "model.dropout": tune.choice([0.0, 0.2, 0.5]),
    "model.pooling": tune.choice(["avg", "max"]), "optimizer.weight_decay": tune.uniform(0.0, 0.1),
}
ONLY_IF = {"optimizer.weight_decay": {"model.pooling": ["max"]}}"""


def exchange_of(parent: Values, epoch: int = 3) -> Exchange:
    return Exchange(epoch, {0: 0.8}, [], np.random.default_rng(0), [parent])


def children(explorer: Explorer, values: Values, count: int, epoch: int = 3) -> list[RunConfig]:
    exchange = exchange_of(values, epoch)
    for _ in range(count):
        child = explorer.child(0, exchange)
        assert child is not None
        assert child not in exchange.values
        exchange.values.append(child)
    return [with_values(config(epochs=9), each) for each in exchange.values[1:]]


def test_a_child_has_its_parents_values_and_others_from_the_next_epoch_on(tmp_path: Path) -> None:
    explorer = Explorer(space_of(tmp_path, SPACE), config(epochs=9))
    parent: Values = {"optimizer.lr": 0.01, "model.dropout": 0.2, "model.pooling": "avg"}
    exchange = exchange_of(parent)
    drawn = [explorer.child(0, exchange) for _ in range(60)]
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
    exchange = exchange_of({"model.dropout": 0.0})
    first = only.child(0, exchange)
    assert first == {"model.dropout": 0.0, "schedule.changes": "dropout=0.5@4"}
    exchange.values.append(first)
    assert only.child(0, exchange) is None


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


def test_other_schedulers_have_no_population(tmp_path: Path) -> None:
    assert Population.of(SweepConfig(trials=4), space_of(tmp_path, SPACE)) is None

"""The plots of the searched fields: their scales, their importances, and what is said instead of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from melanoma_dist.metrics.intervals import Undefined
from melanoma_dist.sweep.domains import Scale, scales
from melanoma_dist.sweep.importance import importances
from melanoma_dist.sweep.leaderboard import Entry
from melanoma_dist.sweep.plots import effects_plot, parallel_plot

from .test_space import space_of

SPACE = """SPACE = {
    "optimizer.lr": tune.loguniform(1e-5, 1e-1), "model.pooling": tune.choice(["avg", "max"]),
    "model.dropout": tune.uniform(0.0, 0.5), "input.batch_size": tune.lograndint(8, 65),
    "model.hidden": tune.grid_search([0, 256]), "optimizer.ema_decay": 0.9,
    "model.head_norm": tune.sample_from(lambda spec: "none"),
}"""


def entry(number: int, auc: float | None, **values: object) -> Entry:
    plain = {key.replace("__", "."): value for key, value in values.items()}
    return Entry(number, f"c{number:03d}", "complete", 2, auc, 0.01, auc, 4, 0.1, "", plain)


def entries(count: int) -> list[Entry]:
    """The AUC depends on the learning rate alone, but for a little noise."""
    rng = np.random.default_rng(0)
    rates = 10 ** rng.uniform(-5, -1, count)
    return [
        entry(
            number,
            0.9 - 0.05 * abs(np.log10(rate) + 3) + rng.normal(0, 0.001),
            optimizer__lr=float(rate),
            model__pooling=str(rng.choice(["avg", "max"])),
            **({"model__dropout": 0.2} if number else {}),
        )
        for number, rate in enumerate(rates)
    ]


@pytest.fixture
def fields(tmp_path: Path) -> dict[str, Scale]:
    return scales(space_of(tmp_path, SPACE).domains)


def test_a_scale_is_logarithmic_where_the_space_draws_logarithms(fields: dict[str, Scale]) -> None:
    assert fields == {
        "optimizer.lr": Scale(bounds=(1e-5, 1e-1), log=True),
        "model.pooling": Scale(choices=("avg", "max")),
        "model.dropout": Scale(bounds=(0.0, 0.5)),
        "input.batch_size": Scale(bounds=(8, 64), log=True),
        "model.hidden": Scale(choices=(0, 256)),
    }
    assert fields["optimizer.lr"].fraction(1e-3) == pytest.approx(0.5)
    assert fields["model.dropout"].fraction(0.1) == pytest.approx(0.2)
    assert fields["model.hidden"].fraction(256) == 1
    varied = {key: fields[key] for key in ("optimizer.lr", "model.pooling", "model.dropout")}
    axes = {each.get_xlabel(): each for each in effects_plot(entries(4), varied, "AUC").axes}
    assert {key: each.get_xscale() for key, each in axes.items()} == {
        "optimizer.lr": "log",
        "model.pooling": "linear",
        "model.dropout": "linear",
    }
    assert [tick.get_text() for tick in axes["model.pooling"].get_xticklabels()] == ["avg", "max"]


def test_the_field_that_decides_is_the_most_important(fields: dict[str, Scale]) -> None:
    few = {key: fields[key] for key in ("model.pooling", "optimizer.lr", "model.dropout")}
    shares = importances([*entries(25), entry(99, None, optimizer__lr=1e-4)], few)
    assert not isinstance(shares, Undefined)
    assert list(shares) == ["optimizer.lr", "model.pooling"]  # one configuration does not set dropout
    assert shares["optimizer.lr"] > 0.9
    assert sum(shares.values()) == pytest.approx(1)
    assert importances(entries(25), few) == shares == importances(entries(25)[::-1], few)


def test_why_there_are_no_importances(fields: dict[str, Scale]) -> None:
    few = {"optimizer.lr": fields["optimizer.lr"]}
    assert importances(entries(9), few) == Undefined("needs 10 configurations with a result, and here are 9")
    equal = [entry(number, 0.8, optimizer__lr=1e-4) for number in range(12)]
    assert isinstance(importances(equal, few), Undefined)
    assert isinstance(importances(entries(12), {}), Undefined)


def test_a_line_leads_through_every_value_to_its_auc(fields: dict[str, Scale]) -> None:
    varied = {key: fields[key] for key in ("optimizer.lr", "model.dropout")}
    axes = parallel_plot([entry(0, 0.7, optimizer__lr=1e-3), entry(1, 0.9, optimizer__lr=1e-5, model__dropout=0.5),
                          entry(2, None, optimizer__lr=1e-2)], varied, "AUC").axes[0]  # fmt: skip
    lines = [list(line.get_ydata()) for line in axes.get_lines()]
    assert lines[0][0] == pytest.approx(0.5)
    assert lines[0][1] < 0  # not active
    assert lines[:2] == [[pytest.approx(0.5), lines[0][1], 0], [0, 1, 1]]

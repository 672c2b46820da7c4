from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from melanoma_dist.metrics.multiple_testing import holm


def test_a_worked_example() -> None:
    """By hand: 0.01 x 4; 0.02 x 3 = 0.06; 0.03 x 2 = 0.06; 0.04 x 1 = 0.04, which must not fall below 0.06."""
    assert holm([0.01, 0.04, 0.03, 0.02]) == pytest.approx([0.04, 0.06, 0.06, 0.06])
    assert holm([0.01, 0.02, 0.03]) == pytest.approx([0.03, 0.04, 0.04])
    assert holm([0.7, 0.6]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []
    assert holm([0.0, 1.0, 0.0]) == [0.0, 1.0, 0.0]


def step_down(p: list[float], level: float) -> list[bool]:
    """Holm's procedure as he wrote it: reject the smallest while it is at most level / (tests left)."""
    rejected = [False] * len(p)
    for left, at in zip(range(len(p), 0, -1), np.argsort(p), strict=True):
        if p[at] > level / left:
            break
        rejected[at] = True
    return rejected


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8, unique=True), st.floats(0.001, 0.5))
def test_rejecting_by_adjusted_values_is_the_step_down_procedure(p: list[float], level: float) -> None:
    adjusted = holm(p)
    if all(abs(value - level) > 1e-9 for value in adjusted):  # otherwise rounding decides
        assert [value <= level for value in adjusted] == step_down(p, level)


def test_the_values_of_statsmodels() -> None:
    multitest = pytest.importorskip("statsmodels.stats.multitest", reason="statsmodels is not installed")
    for seed in range(20):
        p = np.random.default_rng(seed).random(7) ** 3
        assert holm(p.tolist()) == pytest.approx(multitest.multipletests(p, method="holm")[1].tolist())


def test_a_false_rejection_is_as_rare_as_promised() -> None:
    """Ten tests that depend on each other, of hypotheses that are true."""
    rng = np.random.default_rng(0)
    p = 2 * norm.sf(np.abs(rng.normal(size=(4000, 1)) + rng.normal(size=(4000, 10))) / np.sqrt(2))
    assert np.mean([min(holm(row.tolist())) < 0.05 for row in p]) < 0.05


def test_among_true_nulls_one_in_twenty_families_has_a_false_alarm() -> None:
    p = np.random.default_rng(0).random((4000, 10))
    alarms = sum(min(holm(row.tolist())) < 0.05 for row in p)
    assert 0.04 < alarms / len(p) < 0.06

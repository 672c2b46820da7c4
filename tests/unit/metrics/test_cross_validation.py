from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import t as student
from scipy.stats import ttest_1samp

from melanoma_dist.errors import ConfigError
from melanoma_dist.metrics.cross_validation import FoldSpread, compare, fold_spread, over_folds, variance_components


def test_the_interval_over_folds_is_wider_than_that_of_independent_values() -> None:
    values = [0.82, 0.85, 0.80, 0.84, 0.83]
    result = over_folds(values)
    naive = ttest_1samp(values, 0).confidence_interval(0.95)
    assert (result.mean, result.sd) == (pytest.approx(np.mean(values)), pytest.approx(np.std(values, ddof=1)))
    assert result.high - result.low == pytest.approx(1.5 * (naive.high - naive.low))  # sqrt((1/5 + 1/4) / (1/5))
    assert result.high + result.low == pytest.approx(2 * result.mean)
    twice = over_folds([*values, *values], repeats=2)
    factor = np.std([*values, *values], ddof=1) * np.sqrt(1 / 10 + 1 / 4)
    assert twice.high - twice.low == pytest.approx(2 * student.ppf(0.975, 9) * factor)
    for wrong, repeats in (([0.8], 1), ([0.8, 0.9], 2), ([0.8, 0.9, 0.7], 2)):
        with pytest.raises(ConfigError, match="2 or more folds"):
            over_folds(wrong, repeats)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
@example([0.0, 0.0, 5e-324, 5e-324, 5e-324])
def test_the_interval_of_a_metric_never_leaves_the_scale(values: list[float]) -> None:
    spread = fold_spread(values)
    assert spread.folds == len(values)
    if spread.low is not None and spread.high is not None and spread.mean is not None:
        assert len(values) >= 5
        assert 0 <= spread.low <= spread.mean + 1e-12
        assert spread.mean - 1e-12 <= spread.high <= 1
    else:
        assert spread.no_interval


def test_the_interval_of_a_metric_is_that_of_its_logit() -> None:
    """By hand, for AUCs whose plain interval exceeds 1: t of 4 degrees of freedom, Nadeau and Bengio's factor."""
    values = [0.999, 0.998, 0.93, 0.997, 0.99]
    assert over_folds(values).high > 1
    spread, mean = fold_spread(values), np.mean(values)
    error = student.ppf(0.975, 4) * np.std(values, ddof=1) * np.sqrt(1 / 5 + 1 / 4)
    ends = expit(logit(mean) + np.array([-1, 1]) * error / (mean * (1 - mean)))
    assert [spread.low, spread.high] == pytest.approx(ends.tolist())
    twice = fold_spread([*values, *values], repeats=2)
    assert (twice.folds, twice.mean) == (5, pytest.approx(mean))
    assert twice.high is not None
    assert spread.high is not None
    assert twice.high < spread.high


def test_few_folds_and_perfect_ones_have_a_reason_instead_of_an_interval() -> None:
    four = fold_spread([0.8, 0.9, None, 0.85, 0.95])
    assert (four.low, four.high, four.folds) == (None, None, 4)
    assert four.sd == pytest.approx(np.std([0.8, 0.9, 0.85, 0.95], ddof=1))
    assert four.no_interval == "an interval needs 5 folds that define it; here are 4"
    assert fold_spread([0.8] * 4 * 3, repeats=3).no_interval.endswith("here are 4")
    perfect = fold_spread([1.0] * 5)
    assert perfect == FoldSpread(1.0, 0.0, None, None, 5)
    assert perfect.no_interval == "every fold has 1, which says nothing about other images"
    assert fold_spread([None]) == FoldSpread(None, None, None, None, 0)


def test_the_interval_of_a_difference_is_wider_than_that_of_independent_folds() -> None:
    first = {0: 0.82, 1: 0.85, 2: 0.80, 3: 0.84, 4: 0.83}
    second = {0: 0.81, 1: 0.83, 2: 0.80, 3: 0.82, 4: 0.82}
    result = compare(first, second)
    differences = [first[fold] - second[fold] for fold in first]
    naive = ttest_1samp(differences, 0.0).confidence_interval(0.95)
    assert result.difference == pytest.approx(0.012)
    # Nadeau and Bengio's factor for 5 folds: sqrt((1/5 + 1/4) / (1/5)) = 1.5.
    assert result.high - result.low == pytest.approx(1.5 * (naive.high - naive.low))
    assert not result.separable
    assert compare(first, {fold: auc - 0.02 for fold, auc in second.items()}).separable
    assert not compare(first, {fold: auc + 0.01 * (-1) ** fold for fold, auc in first.items()}).separable


def test_components_by_the_table_of_the_analysis_of_variance() -> None:
    """3 folds and 2 seeds by hand: sums of squares 6 (folds, 2 df), 1.5 (seeds, 1 df), 1 (remainder, 2 df)."""
    result = variance_components([[1, 3], [2, 2], [3, 5]])
    table = np.array([[1, 3], [2, 2], [3, 5]], dtype=float)
    by_fold, by_seed, mean = table.mean(axis=1), table.mean(axis=0), table.mean()
    of_folds = 2 * ((by_fold - mean) ** 2).sum() / 2
    of_seeds = 3 * ((by_seed - mean) ** 2).sum() / 1
    rest = ((table - mean) ** 2).sum() - 2 * of_folds - of_seeds
    assert result.mean == pytest.approx(mean)
    assert result.remainder == pytest.approx(rest / 2)
    assert result.folds == pytest.approx((of_folds - rest / 2) / 2)
    assert result.seeds == pytest.approx((of_seeds - rest / 2) / 3)


def test_components_are_found_again_on_average() -> None:
    rng = np.random.default_rng(0)
    result = [
        variance_components(
            (rng.normal(0, 0.03, (5, 1)) + rng.normal(0, 0.02, (1, 4)) + rng.normal(0, 0.01, (5, 4))).tolist()
        )
        for _ in range(4000)
    ]
    assert np.mean([one.folds for one in result]) == pytest.approx(0.03**2, rel=0.05)
    assert np.mean([one.seeds for one in result]) == pytest.approx(0.02**2, rel=0.05)
    assert np.mean([one.remainder for one in result]) == pytest.approx(0.01**2, rel=0.05)
    assert np.mean([one.within_fold for one in result]) == pytest.approx(0.02**2 + 0.01**2, rel=0.05)


def test_folds_alone_and_seeds_alone() -> None:
    folds = variance_components([[0.8, 0.8, 0.8], [0.9, 0.9, 0.9]])
    assert (folds.folds, folds.seeds, folds.remainder) == (pytest.approx(0.005), 0, pytest.approx(0))
    seeds = variance_components([[0.8, 0.9], [0.8, 0.9], [0.8, 0.9]])
    assert (seeds.folds, seeds.seeds, seeds.remainder) == (0, pytest.approx(0.005), pytest.approx(0))


@pytest.mark.parametrize("values", [[[0.8, 0.9]], [[0.8], [0.9]], [[0.8, 0.9], [0.8]], []])
def test_too_little_or_ragged_is_refused(values: list[list[float]]) -> None:
    with pytest.raises(ConfigError, match="at least 2 folds"):
        variance_components(values)

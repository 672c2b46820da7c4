from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2
from sklearn.metrics import roc_auc_score

from melanoma_dist.errors import DataError
from melanoma_dist.evaluate.delong import delong

from .made import binary

# The 43 complete cases of the worked example of DeLong, DeLong and Clarke-Pearson (1988): albumin, total protein, K-G
# score and whether surgery helped, as the SAS/STAT User's Guide prints them (PROC LOGISTIC, "Comparing Receiver
# Operating Characteristic Curves"). The K-G score counts downwards.
PRINTED = """
    3.0 5.8 10 0   3.2 6.3  5 1   3.9 6.8  3 1   2.8 4.8  6 0   3.2 5.8  3 1   0.9 4.0  5 0   2.5 5.7  8 0
    1.6 5.6  5 1   3.8 5.7  5 1   3.7 6.7  6 1   3.2 5.4  4 1   3.8 6.6  6 1   4.1 6.6  5 1   3.6 5.7  5 1
    4.3 7.0  4 1   3.6 6.7  4 0   2.3 4.4  6 1   4.2 7.6  4 0   4.0 6.6  6 0   3.5 5.8  6 1   3.8 6.8  7 1
    3.0 4.7  8 0   4.5 7.4  5 1   3.7 7.4  5 1   3.1 6.6  6 1   4.1 8.2  6 1   4.3 7.0  5 1   4.3 6.5  4 1
    3.2 5.1  5 1   2.6 4.7  6 1   3.3 6.8  6 0   1.7 4.0  7 0   3.7 6.1  5 1   3.3 6.3  7 1   4.2 7.7  6 1
    3.5 6.2  5 1   2.9 5.7  9 0   2.1 4.8  7 1   2.8 6.2  8 0   4.0 7.0  7 1   3.3 5.7  6 1   3.7 6.9  5 1
    3.6 6.6  5 1
"""
CASES = np.array(PRINTED.split(), dtype=float).reshape(-1, 4)


def test_the_worked_example_of_delong() -> None:
    """AUCs, standard errors, differences from K-G and the test of all three, to the four digits that are printed."""
    found = delong(CASES[:, 3], np.stack([CASES[:, 0], -CASES[:, 2], CASES[:, 1]], axis=1))
    assert found.auc.round(4).tolist() == [0.7366, 0.7258, 0.6478]
    assert np.sqrt(np.diag(found.covariance)).round(4).tolist() == [0.0927, 0.1028, 0.1000]
    albumin, protein = found.difference(0, 1), found.difference(2, 1)
    assert [round(value, 4) for value in (albumin.difference, albumin.standard_error, albumin.p)] == [
        *(0.0108, 0.0953, 0.9102)
    ]
    assert [round(value, 4) for value in (albumin.low, albumin.high)] == [-0.1761, 0.1976]
    assert [round(value, 4) for value in (protein.difference, protein.standard_error, protein.p)] == [
        *(-0.0780, 0.1046, 0.4561)
    ]
    contrasts = np.array([[1, -1, 0], [0, -1, 1]])
    gaps = contrasts @ found.auc
    statistic = gaps @ np.linalg.solve(contrasts @ found.covariance @ contrasts.T, gaps)
    assert (round(statistic, 4), round(float(chi2.sf(statistic, 2)), 4)) == (2.5340, 0.2817)


def kernel(positive: float, negative: float) -> float:
    return float(positive > negative) + 0.5 * float(positive == negative)


def by_pairs(truth: Any, scores: Any, group: Any) -> Any:
    """Obuchowski's covariance by its definition: a loop over all pairs."""
    positives, negatives = np.flatnonzero(truth == 1), np.flatnonzero(truth == 0)
    models = range(scores.shape[1])
    win = {(i, j, k): kernel(scores[i, k], scores[j, k]) for i, j, k in product(positives, negatives, models)}
    auc = [np.mean([win[i, j, k] for i, j in product(positives, negatives)]) for k in models]
    groups = np.unique(group)
    of_positives = np.zeros((len(models), len(groups)))
    of_negatives = np.zeros((len(models), len(groups)))
    for k in models:
        for at, name in enumerate(groups):
            for i in positives[group[positives] == name]:
                of_positives[k, at] += np.mean([win[i, j, k] for j in negatives]) - auc[k]
            for j in negatives[group[negatives] == name]:
                of_negatives[k, at] += np.mean([win[i, j, k] for i in positives]) - auc[k]
    with_positives, with_negatives = (len(np.unique(group[index])) for index in (positives, negatives))
    first = with_positives / ((with_positives - 1) * len(positives)) * of_positives @ of_positives.T
    second = with_negatives / ((with_negatives - 1) * len(negatives)) * of_negatives @ of_negatives.T
    third = len(groups) / (len(groups) - 1) * of_positives @ of_negatives.T
    pairs = len(positives) * len(negatives)
    return np.array(auc), first / len(positives) + second / len(negatives) + (third + third.T) / pairs


@given(st.integers(0, 10_000), st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_mid_ranks_and_pairs_agree(seed: int, digits: int) -> None:
    """With ties, with groups that have both kinds, and with each image its own group (DeLong)."""
    rng = np.random.default_rng(seed)
    truth = np.concatenate([[0, 0, 1, 1], rng.integers(2, size=16)])
    scores = (rng.normal(size=(20, 2)) + truth[:, None]).round(digits - 1)
    for group in (np.arange(20), np.concatenate([np.arange(4), rng.integers(8, size=16)])):
        found = delong(truth.astype(float), scores, group)
        auc, covariance = by_pairs(truth, scores, group)
        np.testing.assert_allclose(found.auc, auc, atol=1e-12)
        np.testing.assert_allclose(found.covariance, covariance, atol=1e-12)
    alone = delong(truth.astype(float), scores)
    np.testing.assert_allclose(alone.covariance, delong(truth.astype(float), scores, np.arange(20)).covariance)


def test_unknown_truths_do_not_count_even_in_groups() -> None:
    made = binary(60, np.random.default_rng(0))
    truth, score = made.truth[:, 0].copy(), made.probability[:, 0]
    truth[::5] = np.nan
    known = ~np.isnan(truth)
    found, expected = delong(truth, score, made.group), delong(truth[known], score[known], made.group[known])
    assert found.auc[0] == pytest.approx(roc_auc_score(truth[known], score[known]))
    np.testing.assert_allclose(found.covariance, expected.covariance)


def test_the_variance_is_that_of_many_data_sets() -> None:
    """That of images as independent evidence is not."""
    rng = np.random.default_rng(1)
    sets = [binary(150, rng) for _ in range(400)]
    clustered, plain = (
        [delong(m.truth[:, 0], m.probability[:, 0], g) for m, g in zip(sets, groups, strict=True)]
        for groups in ([m.group for m in sets], [None] * 400)
    )
    true = np.std([found.auc[0] for found in clustered])
    assert np.mean([found.covariance[0, 0] ** 0.5 for found in clustered]) == pytest.approx(true, rel=0.1)
    assert (
        np.mean([found.covariance[0, 0] ** 0.5 for found in plain]) < 0.8 * true
    )  # images are no independent evidence


def test_intervals_and_tests_at_the_edges() -> None:
    truth = np.array([0.0, 0, 0, 1, 1, 1])
    perfect = delong(truth, np.stack([truth, 2 * truth, 1 - truth], axis=1))
    assert perfect.interval(0) == (1, 1)
    assert perfect.interval(2) == (0, 0)
    same = perfect.difference(0, 1)
    assert (same.difference, same.low, same.high, same.p) == (0, 0, 0, 1)
    assert perfect.difference(0, 2).p == 0
    constant = delong(truth, np.zeros(6))
    assert (constant.auc[0], constant.interval()) == (0.5, (0.5, 0.5))


def test_an_interval_lies_within_0_and_1_and_around_the_auc() -> None:
    truth = np.array([0.0] * 20 + [1] * 4)
    found = delong(truth, np.concatenate([np.arange(20), [18.5, 30, 31, 32]]))
    low, high = found.interval()
    assert 0 < low < found.auc[0] < high < 1
    assert found.interval(level=0.5)[0] > low


@pytest.mark.parametrize("truth", [[0.0, 0, 0], [0.0, 0, 1], [np.nan, np.nan, np.nan]])
def test_too_little_is_refused(truth: list[float]) -> None:
    with pytest.raises(DataError, match="2 groups with positives"):
        delong(np.array(truth), np.array([0.1, 0.2, 0.3]))

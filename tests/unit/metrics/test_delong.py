from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, logit
from scipy.stats import chi2
from scipy.stats import t as student
from sklearn.metrics import roc_auc_score

from melanoma_dist.errors import DataError
from melanoma_dist.metrics.delong import delong

from .samples import binary

# 113 patients with a subarachnoid haemorrhage: WFNS grade, NDKA, S100B and whether the outcome was poor. Turck et al.
# 2010, Intensive Care Medicine 36(1), doi:10.1007/s00134-009-1641-y; the values are those of the data set aSAH of the R
# package pROC 1.19.0.1 (Robin et al. 2011, BMC Bioinformatics 12:77, doi:10.1186/1471-2105-12-77).
PATIENTS = """
      1 3.01 0.13 0     1 8.54 0.14 0      1 8.09 0.1 0    1 10.42 0.04 0     3 17.4 0.13 1     2 12.75 0.1 1
         5 6 0.47 0     4 13.2 0.16 1    1 15.54 0.18 0      2 6.01 0.1 0    5 15.96 0.12 1     2 17.86 0.1 0
      5 5.18 0.44 1      5 8.9 0.71 1    1 13.41 0.04 0    2 20.75 0.08 0     5 11.6 0.49 1    2 16.11 0.04 0
     2 32.37 0.07 1    5 54.82 0.33 1    2 32.41 0.09 1    1 49.94 0.09 0    1 40.34 0.07 1     1 9.47 0.11 0
      1 6.29 0.07 0    2 12.53 0.17 0     1 6.54 0.07 0      2 6.3 0.11 0     1 80.3 0.13 0     1 12.8 0.19 0
       3 9.8 0.05 0     4 9.81 0.16 0     2 9.85 0.41 1    1 18.21 0.14 0     4 5.03 0.34 0    5 14.04 0.35 1
     4 21.93 0.48 1     1 8.02 0.09 0     4 7.42 0.96 1     2 8.38 0.25 1      5 6.59 0.5 0     5 9.63 0.46 0
     1 13.12 0.16 0     1 7.96 0.07 0    2 14.34 0.43 0    4 41.43 0.45 0     1 7.63 0.11 0     1 7.06 0.08 0
     2 12.59 0.09 0    5 13.56 0.86 1     5 3.87 0.52 1     2 9.44 0.08 0     1 7.66 0.06 0    2 12.98 0.13 0
    5 419.19 2.07 1     1 27.19 0.1 0    2 22.27 0.14 0     2 9.95 0.15 0    2 21.22 0.07 1    1 11.73 0.06 0
      5 10.4 0.77 1    1 58.83 0.05 0     1 6.39 0.09 0     2 11.09 0.3 1    5 12.22 0.03 1    2 13.67 0.09 1
     1 17.21 0.04 0    4 22.63 0.23 1      5 12.9 0.7 1      2 9.7 0.09 0    4 21.57 0.27 1     4 8.23 0.71 1
     1 72.57 0.08 1    4 15.54 0.26 1    1 10.51 0.08 0     2 10.6 0.16 0    1 14.57 0.09 0     4 5.19 0.13 1
       2 9.63 0.1 1     1 4.61 0.08 0    2 21.48 0.11 1     3 17.3 0.33 0    2 12.71 0.11 0     4 9.44 0.28 0
     2 11.07 0.07 0     1 19.46 0.1 0    4 10.83 0.32 0     5 5.37 0.22 1    1 11.97 0.07 0     1 7.75 0.05 0
      5 9.83 0.24 0    4 10.55 0.38 0     2 28.49 0.1 0     2 8.53 0.15 0    1 12.57 0.08 0     1 12.9 0.14 0
      1 46.83 0.1 0    3 11.68 0.07 0    1 12.67 0.04 0     2 9.01 0.19 0     5 9.57 0.56 1    2 34.06 0.14 1
     2 11.72 0.58 1    5 14.26 0.32 1    5 47.61 0.82 1    5 11.67 0.74 1    2 24.58 0.15 0    4 10.33 0.47 0
     4 13.87 0.17 0    5 15.89 0.44 1    1 22.43 0.15 0      1 6.79 0.5 0    1 13.45 0.48 0
"""
ASAH = np.array(PATIENTS.split(), dtype=float).reshape(-1, 4)

# The 43 complete cases of the example of DeLong, DeLong and Clarke-Pearson (1988): albumin, total protein, K-G score
# and the patient's group, as the SAS/STAT User's Guide prints them (PROC LOGISTIC, "Comparing Receiver Operating
# Characteristic Curves", Example 72.8 of statug/68162). The K-G score counts downwards.
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


def test_the_figures_that_proc_publishes_of_its_patients() -> None:
    """What pROC 1.19.0.1 expects of aSAH, all digits: tests/testthat/test-auc.R, -var.R, -cov.R and -roc.test.R.

    The AUC of S100B stands in none of these: it is that of WFNS less their difference, the middle of its interval.
    """
    result = delong(ASAH[:, 3], ASAH[:, :3])
    between = 0.0104061769564846, 0.174214419249478
    expected = [0.823678861788618, 0.611957994579946, 0.823678861788618 - sum(between) / 2]
    assert result.auc.tolist() == pytest.approx(expected, rel=1e-12)
    wfns, ndka, s100b = 0.00146991470882363, 0.0031908105493913, 0.00266868245717244
    pairs = -0.000532967856762438, 0.00119615567376754, -0.000756164938056579
    covariance = np.array([[wfns, *pairs[:2]], [pairs[0], ndka, pairs[2]], [pairs[1], pairs[2], s100b]])
    np.testing.assert_allclose(result.covariance, covariance, rtol=1e-12)
    for first, second, z, p, interval in (
        (0, 2, 2.20898359144091, 0.0271757822291882, between),
        (0, 1, 2.79777591868904, 0.00514557970691098, (0.0634011709339876, 0.3600405634833566)),
        (1, 2, -1.39077002573558, 0.164295175223054, (-0.2876917446341914, 0.0488706064228094)),
    ):
        difference = result.difference(first, second)
        assert difference.difference / difference.standard_error == pytest.approx(z, rel=1e-12)
        assert difference.p == pytest.approx(p, rel=1e-10)
        assert (difference.low, difference.high) == pytest.approx(interval, rel=1e-12)


def test_the_worked_example_of_delong() -> None:
    """AUCs, standard errors, differences from K-G and the test of all three, to four digits.

    The cases were compared with the guide; its printed results were not at hand and are quoted from memory. What the
    covariance rests on is pROC, above, and the loop over all pairs, below.
    """
    result = delong(CASES[:, 3], np.stack([CASES[:, 0], -CASES[:, 2], CASES[:, 1]], axis=1))
    assert result.auc.round(4).tolist() == [0.7366, 0.7258, 0.6478]
    assert np.sqrt(np.diag(result.covariance)).round(4).tolist() == [0.0927, 0.1028, 0.1000]
    albumin, protein = result.difference(0, 1), result.difference(2, 1)
    assert [round(value, 4) for value in (albumin.difference, albumin.standard_error, albumin.p)] == [
        *(0.0108, 0.0953, 0.9102)
    ]
    assert [round(value, 4) for value in (albumin.low, albumin.high)] == [-0.1761, 0.1976]
    assert [round(value, 4) for value in (protein.difference, protein.standard_error, protein.p)] == [
        *(-0.0780, 0.1046, 0.4561)
    ]
    contrasts = np.array([[1, -1, 0], [0, -1, 1]])
    gaps = contrasts @ result.auc
    statistic = gaps @ np.linalg.solve(contrasts @ result.covariance @ contrasts.T, gaps)
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
        result = delong(truth.astype(float), scores, group)
        auc, covariance = by_pairs(truth, scores, group)
        np.testing.assert_allclose(result.auc, auc, atol=1e-12)
        np.testing.assert_allclose(result.covariance, covariance, atol=1e-12)
    alone = delong(truth.astype(float), scores)
    np.testing.assert_allclose(alone.covariance, delong(truth.astype(float), scores, np.arange(20)).covariance)


def test_unknown_truths_do_not_count_even_in_groups() -> None:
    drawn = binary(60, np.random.default_rng(0))
    truth, score = drawn.truth[:, 0].copy(), drawn.probability[:, 0]
    truth[::5] = np.nan
    known = ~np.isnan(truth)
    result, expected = delong(truth, score, drawn.group), delong(truth[known], score[known], drawn.group[known])
    assert result.auc[0] == pytest.approx(roc_auc_score(truth[known], score[known]))
    np.testing.assert_allclose(result.covariance, expected.covariance)


def test_the_variance_is_that_of_many_data_sets() -> None:
    """That of images as independent evidence is not."""
    rng = np.random.default_rng(1)
    sets = [binary(150, rng) for _ in range(400)]
    clustered, plain = (
        [delong(m.truth[:, 0], m.probability[:, 0], g) for m, g in zip(sets, groups, strict=True)]
        for groups in ([m.group for m in sets], [None] * 400)
    )
    true = np.std([result.auc[0] for result in clustered])
    assert np.mean([result.covariance[0, 0] ** 0.5 for result in clustered]) == pytest.approx(true, rel=0.1)
    assert (
        np.mean([result.covariance[0, 0] ** 0.5 for result in plain]) < 0.8 * true
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
    result = delong(truth, np.concatenate([np.arange(20), [18.5, 30, 31, 32]]))
    low, high = result.interval()
    assert 0 < low < result.auc[0] < high < 1
    assert result.interval(level=0.5)[0] > low
    auc, error = result.auc[0], np.sqrt(result.covariance[0, 0])
    logits = student(result.groups - 1, logit(auc), error / (auc * (1 - auc))).interval(0.95)
    assert (low, high) == pytest.approx(expit(logits))


@pytest.mark.parametrize("truth", [[0.0, 0, 0], [0.0, 0, 1], [np.nan, np.nan, np.nan]])
def test_too_little_is_refused(truth: list[float]) -> None:
    with pytest.raises(DataError, match="2 groups with positives"):
        delong(np.array(truth), np.array([0.1, 0.2, 0.3]))

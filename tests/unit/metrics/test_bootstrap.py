from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binomtest, norm
from sklearn.metrics import roc_curve

from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.metrics.bootstrap import bootstrap, difference, draw, draws, evidence, ratios, roc_band, strata_of
from melanoma_dist.metrics.classification import METRICS, Settings, compute_metrics
from melanoma_dist.metrics.delong import delong
from melanoma_dist.metrics.intervals import Interval, MetricInterval, tail
from melanoma_dist.metrics.weighted import ISIC_SCORES

from .samples import binary, exclusive, metric_of

LABELS = ("MEL", "BKL")
MADE = exclusive(2, 300, 150, seed=5)
SETTINGS = Settings(prevalences=(0.1,))


def assert_inside(interval: MetricInterval) -> None:
    assert interval.estimate is not None
    assert interval.low is not None
    assert interval.high is not None
    assert interval.low < interval.estimate < interval.high


def width(interval: MetricInterval) -> float:
    assert interval.low is not None
    assert interval.high is not None
    return interval.high - interval.low


def test_every_resample_is_the_figures_of_the_lesions_drawn() -> None:
    """A plain loop over scikit-learn, with the same draws."""
    result = bootstrap(MADE.truth, MADE.probability, MADE.group, LABELS, SETTINGS, resamples=4, seed=9)
    weights = draw(strata_of(MADE.truth, MADE.group), 4, np.random.default_rng([9, 0]))
    for at in range(4):
        times = weights[MADE.group, at].astype(int)
        slow = compute_metrics(np.repeat(MADE.truth, times, 0), np.repeat(MADE.probability, times, 0), LABELS, SETTINGS)
        for column, value in zip(result.columns, result.samples[:, at], strict=True):
            expected = metric_of(slow, *column)
            assert value == pytest.approx(np.nan if expected is None else expected, rel=1e-6, nan_ok=True), column


def test_an_interval_is_made_of_quantiles_around_scikit_learns_estimate() -> None:
    result = bootstrap(MADE.truth, MADE.probability, MADE.group, LABELS, SETTINGS, resamples=300)
    intervals = result.intervals(0.9)
    whole = compute_metrics(MADE.truth, MADE.probability, LABELS, SETTINGS)
    assert set(intervals.rows) == {"MEL", "BKL", "macro", "micro"}
    assert set(intervals.isic_scores) == {"isic2017"}
    assert len(result.columns) == 4 * len(METRICS) + 1
    for (row, metric), drawn, groups in zip(result.columns, result.samples, result.groups, strict=True):
        entry = intervals.isic_scores[metric] if row == ISIC_SCORES else intervals.rows[row].of(metric)
        expected = metric_of(whole, row, metric)
        if expected is None:
            assert entry == MetricInterval(None, None, None, undefined_resamples=300)
            continue
        share = tail(0.9, int(groups))
        assert share < 0.05
        assert entry.estimate == pytest.approx(expected, rel=1e-6)
        assert [entry.low, entry.high] == pytest.approx(np.nanquantile(drawn, [share, 1 - share]).tolist())
        assert entry.undefined_resamples == np.isnan(drawn).sum()
    assert_inside(intervals.rows["MEL"].auc)


def test_few_groups_widen_an_interval_as_students_t_does() -> None:
    """A mean of g numbers: resamples vary by (g - 1) / g too little, and t takes the place of the normal quantile."""
    assert tail(0.95, 10**6) == pytest.approx(0.025, rel=1e-4)
    assert norm.ppf(tail(0.95, 10)) == pytest.approx(-2.2622 * np.sqrt(10 / 9), abs=1e-4)  # t of 9 degrees, from tables
    assert tail(0.95, 6) < tail(0.95, 12) < tail(0.95, 100)
    assert tail(0.95, 0) == tail(0.95, 1) == tail(0.95, 2)


def test_the_groups_that_a_figure_rests_on() -> None:
    nan = np.nan
    truth = np.array([[1, 0], [1, 0], [1, 0], [0, 1], [0, nan], [0, nan], [0, 0]], dtype=np.float32)
    called = np.array([[1, 0], [1, 0], [0, 0], [1, 0], [0, 1], [1, 0], [0, 0]], dtype=bool)
    group = np.array([0, 0, 1, 2, 3, 4, 5])
    figures_of = {
        ("MEL", "auc"): 2,
        ("MEL", "sensitivity"): 2,
        ("MEL", "specificity"): 4,
        ("MEL", "precision"): 3,
        ("BKL", "precision"): 0,
        ("MEL", "brier"): 6,
        ("BKL", "auc"): 1,
        ("BKL", "specificity"): 3,
        ("macro", "auc"): 1,
        ("macro", "specificity"): 3,
        ("micro", "sensitivity"): 3,
        (ISIC_SCORES, "isic2017"): 1,
    }
    assert evidence(truth, called, group, LABELS, tuple(figures_of)).tolist() == list(figures_of.values())


def test_resamples_that_do_not_define_a_figure_are_counted() -> None:
    """Only one image is called, and about every third resample goes without it."""
    score = np.full((60, 1), 0.1, dtype=np.float32)
    score[7] = 0.9
    truth = (np.arange(60) < 20).astype(np.float32)[:, None]
    intervals = bootstrap(truth, score, np.arange(60), ("MEL",), Settings(), resamples=600).intervals().rows["MEL"]
    assert 0.3 < intervals.precision.undefined_resamples / 600 < 0.44  # (1 - 1/20)^20 = 0.36
    assert (intervals.precision.low, intervals.precision.high) == pytest.approx((0.025, 1))  # 1 lesion of 1
    assert intervals.auc.undefined_resamples == 0


def test_the_stratum_is_the_rarest_label_that_an_image_of_the_group_has() -> None:
    nan = np.nan
    truth = np.array([[1, 0], [1, 1], [1, 0], [0, 0], [nan, 0], [0, nan], [1, 0]], dtype=np.float32)
    assert strata_of(truth, np.array([0, 1, 2, 3, 3, 4, 4])).tolist() == [0, 1, 0, -1, 0]


def test_a_resample_has_as_many_groups_of_each_stratum_as_the_data() -> None:
    strata = np.array([0] * 30 + [1] * 5 + [-1] * 70 + [2])
    weights = draw(strata, 50, np.random.default_rng(0))
    for stratum in (-1, 0, 1, 2):
        members = strata == stratum
        assert (weights[members].sum(axis=0) == members.sum()).all()
    assert weights[strata == 0].std() == pytest.approx(1, abs=0.1)  # each is drawn Poisson(1), nearly
    assert (weights[-1] == 1).all()


def test_a_seed_decides_everything_and_names_of_groups_nothing() -> None:
    names = np.array([f"lesion-{number:04d}" for number in MADE.group])
    first, second, other = (
        bootstrap(MADE.truth, MADE.probability, group, LABELS, SETTINGS, resamples=70, seed=seed)
        for group, seed in ((MADE.group, 1), (names, 1), (MADE.group, 2))
    )
    np.testing.assert_array_equal(first.samples, second.samples)
    assert not np.array_equal(first.samples, other.samples, equal_nan=True)


def test_a_paired_difference_is_narrower_than_its_parts_and_zero_of_itself() -> None:
    better = np.clip(0.9 * MADE.probability + 0.05 * np.nan_to_num(MADE.truth), 0, 1).astype(np.float32)
    first, second = (
        bootstrap(MADE.truth, probability, MADE.group, LABELS, SETTINGS, resamples=400)
        for probability in (better, MADE.probability)
    )
    paired, alone = difference(first, second).intervals().rows["MEL"].auc, first.intervals().rows["MEL"].auc
    assert paired.low is not None
    assert paired.low > 0
    assert_inside(paired)
    assert width(paired) < 0.5 * width(alone)
    assert difference(first, first).intervals().rows["macro"].brier == MetricInterval(0, 0, 0, 0)


def test_what_is_not_paired_is_refused() -> None:
    first, second = (
        bootstrap(MADE.truth, MADE.probability, MADE.group, LABELS, SETTINGS, resamples=5, seed=seed) for seed in (0, 1)
    )
    with pytest.raises(DataError, match="same images"):
        difference(first, second)
    with pytest.raises(DataError, match="same images"):
        difference(first, replace(first, columns=first.columns[:-1]))


def test_nothing_is_refused() -> None:
    empty = np.empty((0, 2), dtype=np.float32)
    with pytest.raises(DataError, match="no predictions"):
        bootstrap(empty, empty, np.empty(0, dtype=int), LABELS, SETTINGS)
    with pytest.raises(ConfigError, match="resamples"):
        bootstrap(MADE.truth, MADE.probability, MADE.group, LABELS, SETTINGS, resamples=0)
    with pytest.raises(ConfigError, match="level"):
        bootstrap(MADE.truth, MADE.probability, MADE.group, LABELS, SETTINGS, resamples=2).intervals(1.0)


def test_one_image_has_figures_but_no_spread() -> None:
    intervals = bootstrap(
        MADE.truth[:1], MADE.probability[:1], MADE.group[:1], LABELS, SETTINGS, resamples=3
    ).intervals()
    brier = intervals.rows["micro"].brier
    assert brier.low == brier.estimate == brier.high
    assert intervals.rows["MEL"].auc.estimate is None


@pytest.mark.long
def test_intervals_of_lesions_cover_the_truth_where_those_of_images_fall_short() -> None:
    """1,000 data sets of 240 lesions with 1 to 5 images each; the true AUC follows from the normal distributions.

    The standard error of a coverage of 95 % is 0.7 %; intervals of images are so far off that 200 data sets suffice.
    """
    rng = np.random.default_rng(0)
    true = norm.cdf(1.5 / np.sqrt(2 * (0.9**2 + 0.5**2)))
    hits: dict[str, list[bool]] = {"lesions": [], "images": [], "Obuchowski": [], "DeLong": []}
    for number in range(1000):
        drawn = binary(240, rng)
        groups = {"lesions": drawn.group} | ({"images": np.arange(len(drawn.group))} if number < 200 else {})
        for name, group in groups.items():
            rows = bootstrap(drawn.truth, drawn.probability, group, ("MEL",), Settings(), 600, number).intervals().rows
            auc = rows["MEL"].auc
            assert auc.low is not None
            assert auc.high is not None
            hits[name].append(auc.low <= true <= auc.high)
        for name, clusters in (("Obuchowski", drawn.group), ("DeLong", None)):
            low, high = delong(drawn.truth[:, 0], drawn.probability[:, 0], clusters).interval()
            hits[name].append(low <= true <= high)
    coverage = {name: float(np.mean(hit)) for name, hit in hits.items()}
    print(coverage)
    assert 0.93 <= coverage["lesions"] <= 0.97
    assert 0.93 <= coverage["Obuchowski"] <= 0.97
    assert coverage["images"] < 0.88
    assert coverage["DeLong"] < 0.88


def test_a_share_of_1_has_an_interval_too() -> None:
    """Every resample repeats it, and so would call 5 lesions as good as 5,000."""
    truth = np.array([1.0] * 10 + [0.0] * 30, dtype=np.float32)
    probability = np.where(truth == 1, 0.9, np.linspace(0.1, 0.6, 40)).astype(np.float32)
    group = np.arange(40) // 2
    row = bootstrap(truth[:, None], probability[:, None], group, ("MEL",), Settings(), 200).intervals().rows["MEL"]
    exact = binomtest(5, 5).proportion_ci(0.95)  # 5 lesions have it
    assert (row.sensitivity.low, row.sensitivity.high) == pytest.approx((exact.low, exact.high))
    parts = {"share": (np.zeros(40, dtype=bool), truth == 0)}
    none = ratios(parts, group, list(draws(strata_of(truth[:, None], group), 200, 0)))["share"]
    exact = binomtest(0, 15).proportion_ci(0.95)
    assert isinstance(none, Interval)
    assert (none.estimate, none.low, none.high) == pytest.approx((0, exact.low, exact.high))


def test_a_difference_of_0_is_no_share_of_0() -> None:
    first = bootstrap(MADE.truth, MADE.probability, MADE.group, LABELS, SETTINGS, resamples=50)
    assert difference(first, first).intervals().rows["MEL"].sensitivity == MetricInterval(0, 0, 0, 0)


def test_the_band_of_a_roc_curve_holds_the_quantiles_of_every_resamples_curve() -> None:
    """Against scikit-learn's curve of the drawn images, weighted by how often their lesion was drawn."""
    truth, probability, group = MADE.truth, MADE.probability, MADE.group
    specificities = np.array([0.5, 0.8, 0.9])
    number = pd.factorize(group, sort=True)[0]
    known = ~np.isnan(truth[:, 0])
    curves = []
    for weights in draws(strata_of(truth, number), 40, seed=3):
        for drawn in weights.T[:, number[known]]:
            false, true, _ = roc_curve(truth[known, 0], probability[known, 0], sample_weight=drawn)
            curves.append(np.interp(1 - specificities, false, true))
    positive = truth[known, 0] == 1
    share = tail(0.9, min(len(np.unique(number[known][kind])) for kind in (positive, ~positive)))
    low, high = roc_band(truth, probability, group, 0, specificities, resamples=40, seed=3, level=0.9)
    np.testing.assert_allclose([low, high], np.quantile(curves, [share, 1 - share], axis=0), atol=1e-6)
    assert (low <= high).all()
    assert low[2] < high[2]

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn import metrics

from melanoma_dist.errors import ConfigError, TrainingError
from melanoma_dist.metrics.classification import (
    METRICS,
    SPECIFICITIES,
    Metrics,
    Settings,
    compute_metrics,
    partial_auc,
    predictive_values,
)

from .samples import exclusive

LABELS = ("A", "B", "C")
SETTINGS = Settings(thresholds=(0.3, 0.5, 0.6), prevalences=(0.02, 0.3, 0.5), bins=10)
MADE = exclusive(3, 400, 150, digits=2)


@pytest.fixture(scope="module")
def computed() -> Metrics:
    return compute_metrics(MADE.truth, MADE.probability, LABELS, SETTINGS)


def known(column: int) -> tuple[Any, Any]:
    here = ~np.isnan(MADE.truth[:, column])
    return MADE.truth[here, column].astype(int), MADE.probability[here, column]


@pytest.mark.parametrize("column", range(3))
def test_figures_of_calls_follow_from_the_confusion_matrix(computed: Metrics, column: int) -> None:
    actual, score = known(column)
    called = score >= np.float32(SETTINGS.thresholds[column])
    tn, fp, fn, tp = metrics.confusion_matrix(actual, called).ravel()
    entry = computed.labels[LABELS[column]]
    assert entry.precision == pytest.approx(tp / (tp + fp))
    assert entry.sensitivity == pytest.approx(tp / (tp + fn))
    assert entry.specificity == pytest.approx(tn / (tn + fp))
    assert entry.f1 == pytest.approx(2 * tp / (2 * tp + fp + fn))
    assert entry.balanced_accuracy == pytest.approx(metrics.balanced_accuracy_score(actual, called))
    assert (entry.positives, entry.negatives, entry.called_positive) == (tp + fn, tn + fp, tp + fp)
    # Predictive values are the precision of a sample that is weighted to have the prevalence.
    share = SETTINGS.prevalence_of(LABELS)[column]
    assert share is not None
    weight = np.where(actual == 1, share / actual.mean(), (1 - share) / (1 - actual.mean()))
    assert entry.ppv == pytest.approx(metrics.precision_score(actual, called, sample_weight=weight))
    assert entry.npv == pytest.approx(metrics.precision_score(actual, called, pos_label=0, sample_weight=weight))


@pytest.mark.parametrize("column", range(3))
def test_figures_of_ranks_by_brute_force(computed: Metrics, column: int) -> None:
    actual, score = known(column)
    entry = computed.labels[LABELS[column]]
    gap = score[actual == 1][:, None] - score[actual == 0][None]
    assert entry.auc == pytest.approx((gap > 0).mean() + 0.5 * (gap == 0).mean())
    calls = [score >= threshold for threshold in np.unique(score)]
    for name, level in SPECIFICITIES.items():
        reached = [(~called[actual == 0]).mean() for called in calls if called[actual == 1].mean() >= level - 1e-12]
        assert entry.value(name) == pytest.approx(max(reached))
    false, true, _ = metrics.roc_curve(actual, score)
    grid = np.linspace(0, 1, 200_001)
    above = np.maximum(np.interp(grid, false, true) - 0.8, 0)
    assert entry.partial_auc_80 == pytest.approx(np.trapezoid(above, grid), abs=2e-6)


@pytest.mark.parametrize("column", range(3))
def test_figures_of_probabilities(computed: Metrics, column: int) -> None:
    actual, score = known(column)
    entry = computed.labels[LABELS[column]]
    score = score.astype(float)
    assert entry.brier == pytest.approx(np.mean((score - actual) ** 2))
    gaps = 0.0
    for low in range(10):
        inside = np.minimum((score * 10).astype(int), 9) == low
        gaps += abs((score - actual)[inside].sum()) / len(score)
    assert entry.calibration_error == pytest.approx(gaps)


def test_macro_is_the_mean_of_the_labels_and_micro_pools_them(computed: Metrics) -> None:
    for metric in METRICS:
        values = [computed.labels[label].value(metric) for label in LABELS]
        assert computed.macro.value(metric) == pytest.approx(np.mean(values))
        assert computed.macro.label_counts.of(metric) == 3
    here = ~np.isnan(MADE.truth)
    actual, score = MADE.truth[here], MADE.probability[here]
    called = (np.float32(SETTINGS.thresholds) <= MADE.probability)[here]
    assert computed.micro.auc == pytest.approx(metrics.roc_auc_score(actual, score))
    assert computed.micro.average_precision == pytest.approx(metrics.average_precision_score(actual, score))
    assert computed.micro.f1 == pytest.approx(metrics.f1_score(actual, called))
    assert computed.micro.ppv is None


def test_the_partial_area_of_chance_and_of_a_perfect_model() -> None:
    actual = np.array([0, 1] * 50)
    assert partial_auc(actual, np.full(100, 0.3), 0.8) == pytest.approx(0.02)
    assert partial_auc(actual, actual.astype(float), 0.8) == pytest.approx(0.2)
    assert partial_auc(actual, 1.0 - actual, 0.8) == pytest.approx(0)


def test_what_the_data_does_not_define_is_none() -> None:
    low = np.array([[0.1], [0.2]], dtype=np.float32)
    ranks = {name for name in METRICS if name not in ("brier", "calibration_error", "specificity")}
    nothing = compute_metrics(np.zeros_like(low), low, ("A",), Settings(prevalences=(0.1,))).labels["A"]
    assert {name for name in METRICS if nothing.value(name) is None} == ranks
    assert nothing.specificity == 1
    positive = compute_metrics(np.ones_like(low), low, ("A",), Settings(prevalences=(0.1,)))
    assert positive.labels["A"].f1 == positive.labels["A"].sensitivity == 0
    assert positive.labels["A"].precision is positive.labels["A"].auc is None
    unknown = compute_metrics(np.full_like(low, np.nan), low, ("A",), Settings())
    assert all(row.value(name) is None for row in (unknown.macro, unknown.micro) for name in METRICS)
    assert (unknown.labels["A"].unknown, unknown.macro.label_counts.auc) == (2, 0)
    empty = compute_metrics(np.empty((0, 1), np.float32), np.empty((0, 1), np.float32), ("A",), Settings())
    assert all(empty.labels["A"].value(name) is None for name in METRICS)


def test_predictive_values_where_nobody_is_called() -> None:
    assert predictive_values(0.0, 1.0, 0.1) == (None, pytest.approx(0.9))
    assert predictive_values(1.0, 0.0, 0.1) == (pytest.approx(0.1), None)


@pytest.mark.parametrize(
    "wrong", [{"thresholds": (1.1,)}, {"prevalences": (0.0,)}, {"prevalences": (1.0,)}, {"bins": 0}]
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        Settings(**wrong)


def test_thresholds_are_one_or_one_for_each() -> None:
    with pytest.raises(ConfigError, match="one for each of the 3 labels"):
        compute_metrics(MADE.truth, MADE.probability, LABELS, Settings(thresholds=(0.1, 0.2)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1, 1.1])
def test_what_is_no_probability_is_refused(value: float) -> None:
    spoilt = MADE.probability.copy()
    spoilt[3, 1] = value
    with pytest.raises(TrainingError, match="not finite probabilities"):
        compute_metrics(MADE.truth, spoilt, LABELS, SETTINGS)


def test_a_label_that_no_image_has_is_in_no_macro_mean() -> None:
    truth = np.array([[1, 0], [0, 0], [1, 0], [0, 0]], dtype=np.float32)
    score = np.array([[0.9, 0.8], [0.2, 0.1], [0.4, 0.2], [0.1, 0.9]], dtype=np.float32)
    result = compute_metrics(truth, score, ("MEL", "BKL"), Settings())
    for metric in METRICS:
        assert result.macro.value(metric) == result.labels["MEL"].value(metric)
    assert result.labels["BKL"].specificity == 0.5
    assert result.macro.label_counts.specificity == 1

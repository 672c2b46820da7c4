"""The fast path against scikit-learn: on images repeated as often as their group, and with sample weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn import metrics

from melanoma_dist.data.labels import LABEL_SETS
from melanoma_dist.metrics.classification import LabelMetrics, Metrics, Settings, compute_metrics
from melanoma_dist.metrics.ranks import Ranks
from melanoma_dist.metrics.weighted import ISIC_SCORES, Weighted

from .samples import exclusive, metric_of

SETTINGS = Settings(thresholds=(0.4,), prevalences=(0.1,))


def assert_same(truth: Any, probability: Any, group: Any, weights: Any, labels: tuple[str, ...]) -> None:
    weighted = Weighted(truth, probability, group, labels, SETTINGS)
    fast = weighted.of(weights)
    assert fast.shape == (len(weighted.columns), weights.shape[1])
    whole = compute_metrics(truth, probability, labels, SETTINGS)
    for at in range(weights.shape[1]):
        times = weights[group, at].astype(int)
        slow = compute_metrics(np.repeat(truth, times, axis=0), np.repeat(probability, times, axis=0), labels, SETTINGS)
        for (row, metric), value in zip(weighted.columns, fast[:, at], strict=True):
            expected = metric_of(slow, row, metric)
            if row in ("macro", ISIC_SCORES) and lost(whole, slow, labels, metric):
                continue  # other labels than before: the fast path does not define it, which another test shows
            if expected is None:
                assert np.isnan(value), (row, metric, value)
            else:
                assert value == pytest.approx(expected, rel=2e-6, abs=2e-6), (row, metric)


def lost(whole: Metrics, drawn: Metrics, labels: tuple[str, ...], metric: str) -> bool:
    if metric in ("isic2018", "isic2019"):
        return any(drawn.labels[label].positives == 0 for label in labels)
    if any(has_both(whole.labels[label]) != has_both(drawn.labels[label]) for label in labels):
        return True
    names = ("auc",) if metric == "isic2017" else (metric,)
    return any(
        whole.labels[label].value(name) is not None and drawn.labels[label].value(name) is None
        for label in labels
        for name in names
    )


def has_both(entry: LabelMetrics) -> bool:
    return bool(entry.positives and entry.negatives)


@pytest.mark.parametrize("digits", [None, 2, 1])
@pytest.mark.parametrize("name", ["isic2017", "isic2018", "isic2019"])
def test_it_is_scikit_learn_on_repeated_images(name: str, digits: int | None) -> None:
    labels = LABEL_SETS[name]
    drawn = exclusive(len(labels), 900, 500, digits=digits)
    weights = np.random.default_rng(1).integers(0, 4, (500, 4)).astype(np.float32)
    weights[:, 0] = 1
    assert_same(drawn.truth, drawn.probability, drawn.group, weights, labels)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_it_is_scikit_learn_on_whatever_occurs(data: st.DataObject) -> None:
    """Ties, unknown truths, one class alone, groups that are not drawn."""
    images, labels = data.draw(st.integers(1, 12)), data.draw(st.sampled_from([("MEL", "BKL"), ("MEL",)]))
    shape = (images, len(labels))
    truth = data.draw(arrays(np.float32, shape, elements=st.sampled_from([0.0, 1.0, np.nan])))
    score = data.draw(arrays(np.float32, shape, elements=st.sampled_from([0.0, 0.25, 0.4, 0.5, 1.0])))
    group = np.unique(data.draw(arrays(np.int64, images, elements=st.integers(0, 5))), return_inverse=True)[1]
    weights = data.draw(arrays(np.float32, (int(group.max()) + 1, 2), elements=st.sampled_from([0.0, 1.0, 3.0])))
    assert_same(truth, score, group, weights, labels)


@pytest.mark.parametrize("digits", [None, 1])
def test_ranks_are_scikit_learns_with_sample_weights(digits: int | None) -> None:
    drawn = exclusive(1, 600, 300, seed=3, digits=digits)
    known = ~np.isnan(drawn.truth[:, 0])
    weights = np.random.default_rng(4).random((300, 3)).astype(np.float32)
    fast = Ranks(drawn.truth[:, 0], drawn.probability[:, 0], drawn.group, 300).of(weights)
    for at in range(3):
        actual, score, weight = (
            drawn.truth[known, 0],
            drawn.probability[known, 0],
            weights[drawn.group[known], at],
        )
        assert fast["auc"][at] == pytest.approx(metrics.roc_auc_score(actual, score, sample_weight=weight), rel=1e-5)
        assert fast["average_precision"][at] == pytest.approx(
            metrics.average_precision_score(actual, score, sample_weight=weight), rel=1e-5
        )


@given(st.integers(0, 1000), st.integers(1, 5))
@settings(max_examples=25, deadline=None)
def test_equal_weights_change_nothing_and_order_neither(seed: int, times: int) -> None:
    drawn = exclusive(2, 80, 40, seed=seed, digits=1)
    order = np.random.default_rng(seed).permutation(80)
    first = Weighted(drawn.truth, drawn.probability, drawn.group, ("MEL", "BKL"), SETTINGS)
    second = Weighted(drawn.truth[order], drawn.probability[order], drawn.group[order], ("MEL", "BKL"), SETTINGS)
    ones = np.ones((40, 1), dtype=np.float32)
    np.testing.assert_allclose(first.of(ones), second.of(times * ones), rtol=1e-5, atol=1e-6)


def column(weighted: Weighted, weights: npt.NDArray[np.float32], name: tuple[str, str]) -> float:
    return float(weighted.of(weights)[weighted.columns.index(name), 0])


def test_a_macro_mean_is_not_defined_where_a_label_is_lost() -> None:
    """Else it would be of other labels in some resamples than in others."""
    truth = np.array([[1, 0], [0, 1], [0, 0]], dtype=np.float32)
    score = np.array([[0.9, 0.1], [0.2, 0.8], [0.3, 0.9]], dtype=np.float32)
    weighted = Weighted(truth, score, np.arange(3), ("MEL", "BKL"), SETTINGS)
    without_bkl = np.array([[1], [0], [1]], dtype=np.float32)
    assert column(weighted, np.ones((3, 1), dtype=np.float32), ("macro", "auc")) == pytest.approx(0.75)
    assert column(weighted, without_bkl, ("MEL", "auc")) == 1
    assert np.isnan(column(weighted, without_bkl, ("BKL", "auc")))
    assert np.isnan(column(weighted, without_bkl, ("macro", "auc")))
    assert np.isnan(column(weighted, without_bkl, (ISIC_SCORES, "isic2017")))


@pytest.mark.parametrize("digits", [None, 1])
def test_the_auc_alone_is_the_same_auc(digits: int | None) -> None:
    drawn = exclusive(1, 300, 150, digits=digits)
    ranks = Ranks(drawn.truth[:, 0], drawn.probability[:, 0], drawn.group, 150)
    weights = np.random.default_rng(2).integers(0, 3, (150, 8)).astype(np.float32)
    np.testing.assert_array_equal(ranks.auc(weights), ranks.of(weights)["auc"])
    nobody = Ranks(np.zeros(300), drawn.probability[:, 0], drawn.group, 150)
    assert np.isnan(nobody.auc(weights)).all()

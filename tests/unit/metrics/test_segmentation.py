"""Scores of masks against scikit-learn's, and boundary distances against SciPy's search trees."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage, stats
from scipy.spatial import KDTree
from scipy.spatial.distance import directed_hausdorff
from sklearn.metrics import accuracy_score, f1_score, jaccard_score, recall_score

from melanoma_dist.errors import DataError
from melanoma_dist.metrics.intervals import Interval
from melanoma_dist.metrics.segmentation import (
    METRICS,
    MaskScores,
    boundary,
    boundary_distance,
    mean_scores,
    overlap,
    score_mask,
)

Mask = npt.NDArray[np.bool_]
SHAPE = (37, 52)
EMPTY, FULL = np.zeros(SHAPE, dtype=bool), np.ones(SHAPE, dtype=bool)


def blobs(seed: int, share: float = 0.3) -> Mask:
    """An irregular mask: smooth noise above a quantile."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 4)
    mask: Mask = noise > np.quantile(noise, 1 - share)
    return mask


@pytest.mark.parametrize("seed", range(8))
def test_overlap_is_that_of_scikit_learn(seed: int) -> None:
    truth, predicted = blobs(seed), blobs(seed + 100, 0.2) | (blobs(seed) & blobs(seed + 200, 0.8))
    flat = truth.ravel(), predicted.ravel()
    scores = score_mask(truth, predicted)
    assert scores.jaccard == pytest.approx(jaccard_score(*flat))
    assert scores.dice == pytest.approx(f1_score(*flat))
    assert scores.sensitivity == pytest.approx(recall_score(*flat))
    assert scores.specificity == pytest.approx(recall_score(*flat, pos_label=0))
    assert scores.accuracy == pytest.approx(accuracy_score(*flat))


@pytest.mark.parametrize("seed", range(8))
def test_the_boundary_distance_is_that_of_a_search_tree(seed: int) -> None:
    truth, predicted = blobs(seed), blobs(seed + 100, 0.15)
    first, second = (np.argwhere(boundary(mask)) for mask in (truth, predicted))
    to_second, to_first = KDTree(second).query(first)[0], KDTree(first).query(second)[0]
    expected = max(np.percentile(to_second, 95), np.percentile(to_first, 95)) / np.hypot(*SHAPE)
    assert boundary_distance(truth, predicted) == pytest.approx(expected)
    largest = max(directed_hausdorff(first, second)[0], directed_hausdorff(second, first)[0]) / np.hypot(*SHAPE)
    assert boundary_distance(truth, predicted, 100) == pytest.approx(largest)


def test_the_boundary_follows_the_edge_of_the_image() -> None:
    frame = np.zeros(SHAPE, dtype=bool)
    frame[[0, -1]], frame[:, [0, -1]] = True, True
    np.testing.assert_array_equal(boundary(FULL), frame)


@pytest.mark.parametrize(
    ("pixels", "score"),
    [((13, 7, 0, 0), 0.65), ((6, 2, 2, 9), 0.0), ((12, 4, 3, 1), 0.0), ((13, 3, 4, 1), 0.65), ((9, 1, 0, 0), 0.9)],
)
def test_a_jaccard_index_of_just_65_percent_counts(pixels: tuple[int, int, int, int], score: float) -> None:
    assert float(overlap(*pixels).thresholded_jaccard) == score


def test_counts_of_many_images_are_scored_at_once() -> None:
    scores = overlap([1, 0], [1, 0], [2, 5], [0, 5])
    np.testing.assert_array_equal(scores.jaccard, [0.25, 0.0])
    np.testing.assert_array_equal(scores.specificity, [0.0, 1.0])


@pytest.mark.parametrize(
    ("truth", "predicted", "expected"),
    [
        # jaccard, thresholded, dice, sensitivity, specificity, accuracy, boundary distance
        (EMPTY, EMPTY, (1, 1, 1, 1, 1, 1, 0)),
        (FULL, FULL, (1, 1, 1, 1, 1, 1, 0)),
        (EMPTY, FULL, (0, 0, 0, 1, 0, 0, 1)),
        (FULL, EMPTY, (0, 0, 0, 0, 1, 0, 1)),
    ],
)
def test_empty_and_full_masks_have_scores(truth: Mask, predicted: Mask, expected: tuple[float, ...]) -> None:
    assert score_mask(truth, predicted) == MaskScores(*expected)


def test_masks_of_two_sizes_are_refused() -> None:
    with pytest.raises(DataError, match=r"A mask of \(52, 37\) pixels cannot be compared with one of \(37, 52\)"):
        score_mask(EMPTY, EMPTY.T)


def test_means_have_intervals_over_lesions_and_failures_are_counted() -> None:
    scores = [score_mask(blobs(seed), blobs(seed) & blobs(seed + 50, 0.9)) for seed in range(60)]
    jaccard = np.array([each.jaccard for each in scores])
    means = mean_scores(scores, np.arange(60), resamples=4000)
    assert list(means) == [*METRICS, "failures"]
    mean, failures = means["jaccard"], means["failures"]
    assert isinstance(mean, Interval)
    assert isinstance(failures, Interval)
    assert mean.estimate == pytest.approx(jaccard.mean())
    assert failures.estimate == pytest.approx((jaccard < 0.65).mean())
    # Of independent images, the percentile interval is near Student's.
    expected = stats.t.interval(0.95, 59, jaccard.mean(), stats.sem(jaccard))
    np.testing.assert_allclose((mean.low, mean.high), expected, atol=0.15 * (expected[1] - expected[0]))


def test_copies_of_a_lesion_do_not_narrow_the_interval() -> None:
    scores = [score_mask(blobs(seed), blobs(seed) & blobs(seed + 50, 0.9)) for seed in range(20)]
    once, thrice = (mean_scores(count * scores, np.tile(np.arange(20), count))["dice"] for count in (1, 3))
    assert isinstance(once, Interval)
    assert isinstance(thrice, Interval)
    np.testing.assert_allclose(astuple(once), astuple(thrice))


def test_no_failure_has_an_upper_bound() -> None:
    failures = mean_scores([score_mask(FULL, FULL)] * 10, np.arange(10))["failures"]
    assert isinstance(failures, Interval)
    assert (failures.estimate, failures.low) == (0, 0)
    assert failures.high > 0.2


def test_no_images_are_refused() -> None:
    with pytest.raises(DataError, match="There are no masks to score"):
        mean_scores([], np.array([]))

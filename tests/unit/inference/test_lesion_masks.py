"""One lesion from a mask of several regions, and how far to trust it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.ndimage import gaussian_filter
from sklearn.metrics import jaccard_score

from melanoma_dist.inference.lesion_masks import largest_region, mask_quality, outline


def test_the_largest_region_is_kept_and_filled() -> None:
    mask = np.zeros((20, 30), dtype=bool)
    mask[2:5, 2:5] = True
    mask[8:18, 10:25] = True
    mask[12:14, 15:20] = False
    expected = np.zeros_like(mask)
    expected[8:18, 10:25] = True
    np.testing.assert_array_equal(largest_region(mask), expected)


def test_regions_that_touch_at_a_corner_alone_are_two() -> None:
    mask = np.array([[1, 0, 0], [0, 1, 1], [0, 1, 1]], dtype=bool)
    np.testing.assert_array_equal(largest_region(mask), [[0, 0, 0], [0, 1, 1], [0, 1, 1]])


@pytest.mark.parametrize("value", [True, False])
def test_full_and_empty_masks_stay(value: bool) -> None:
    mask = np.full((5, 7), value)
    np.testing.assert_array_equal(largest_region(mask), mask)


def test_quality_is_the_jaccard_index_of_masks_drawn_from_the_probabilities() -> None:
    """Scored by scikit-learn. In a large mask the ratio of expectations is the expectation of the ratio."""
    rng = np.random.default_rng(0)
    probability = gaussian_filter(rng.random((96, 96)), 12)
    probability = np.clip((probability - probability.mean()) / probability.std() / 4 + 0.5, 0, 1)
    mask = largest_region(probability >= 0.6)
    assert 500 < mask.sum() < 5000
    drawn = [jaccard_score((rng.random(mask.shape) < probability).ravel(), mask.ravel()) for _ in range(50)]
    assert mask_quality(probability, 0.6) == pytest.approx(np.mean(drawn), abs=2e-3)


def test_certain_masks_have_quality_one_and_no_mask_has_zero() -> None:
    assert mask_quality(np.array([[0.0, 1.0]]), 0.5) == 1
    assert mask_quality(np.full((3, 3), 0.2), 0.5) == 0
    assert mask_quality(np.full((3, 3), 0.6), 0.5) == pytest.approx(0.6)


def test_a_second_region_lowers_the_quality() -> None:
    two = np.zeros((9, 9))
    two[1:5, 1:5], two[7:9, 7:9] = 1, 1
    assert mask_quality(two, 0.5) == pytest.approx(16 / 20)


@pytest.mark.parametrize("seed", range(4))
def test_a_filled_outline_is_its_mask(seed: int) -> None:
    height, width = 180, 240
    noise = gaussian_filter(np.random.default_rng(seed).standard_normal((height, width)), 15)
    mask = largest_region(noise > 0)
    points = outline(mask)
    drawing = Image.new("1", (width, height))
    ImageDraw.Draw(drawing).polygon([(x * width - 0.5, y * height - 0.5) for x, y in points], fill=1, outline=1)
    drawn = np.asarray(drawing)
    assert (drawn & mask).sum() / (drawn | mask).sum() > 0.96
    assert len(points) < 400


def test_an_outline_of_everything_is_the_frame_and_of_nothing_is_empty() -> None:
    frame = np.array(outline(np.ones((30, 40), dtype=bool)))
    assert set(frame.min(axis=0)) == {0.0}
    assert set(frame.max(axis=0)) == {1.0}
    assert outline(np.zeros((30, 40), dtype=bool)) == ()

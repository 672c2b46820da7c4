"""Windows around lesions: where they lie, how they vary in training, and that the graph decodes just them."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as drawn_arrays
from PIL import Image

from melanoma_dist.data.manifest import Dataset
from melanoma_dist.input import stream
from melanoma_dist.input.graph import evaluation_input, training_input
from melanoma_dist.input.loader import EvaluationLoader, TrainingLoader
from melanoma_dist.input.region import Windows, jittered, windows_around, within
from melanoma_dist.input.samples import Samples
from melanoma_dist.input.stream import POLICIES, box_jitter, parameters
from melanoma_dist.world import World

from ..samples import FRAME, all_samples
from .test_graph import FRAME as SQUARE
from .test_graph import ONE_LEVEL, all_of, jpeg, picture, reference

SHARES = st.floats(0, 1, width=32)


def windows(*rows: tuple[float, float, float, float]) -> Windows:
    table = np.array(rows, dtype=np.float32)
    return Windows(table[:, :2], table[:, 2:])


def test_a_window_is_the_box_with_its_margin_made_square() -> None:
    around = windows_around(np.array([[0.4, 0.3, 0.2, 0.1]]), np.array([[100, 200]]), 0.5)
    # 20 rows and 20 columns of pixels, 10 more on each side: a square of 40 about row 50 and column 70.
    np.testing.assert_allclose(around.anchor, [[0.3, 0.25]], atol=1e-6)
    np.testing.assert_allclose(around.extent, [[0.4, 0.2]], atol=1e-6)


def test_a_window_that_would_leave_the_image_is_moved_into_it() -> None:
    around = windows_around(np.array([[0.0, 0.8, 0.1, 0.2]]), np.array([[100, 100]]), 0.5)
    np.testing.assert_allclose(around.anchor, [[0.0, 0.6]], atol=1e-6)
    np.testing.assert_allclose(around.extent, [[0.4, 0.4]], atol=1e-6)


def test_a_lesion_longer_than_the_shorter_side_keeps_all_its_pixels() -> None:
    around = windows_around(np.array([[0.1, 0.2, 0.8, 0.6]]), np.array([[100, 200]]), 0.0)
    np.testing.assert_allclose(around.anchor, [[0.0, 0.2]], atol=1e-6)
    np.testing.assert_allclose(around.extent, [[1.0, 0.6]], atol=1e-6)


@settings(max_examples=100, deadline=None)
@given(
    drawn_arrays(np.float32, (7, 4), elements=SHARES),
    drawn_arrays(np.int32, (7, 2), elements=st.integers(1, 4000)),
    st.floats(0, 2),
    st.integers(0, 2**32 - 1),
)
def test_no_window_leaves_its_image_and_each_holds_its_box(
    ends: np.ndarray, sizes: np.ndarray, margin: float, seed: int
) -> None:
    low, high = np.minimum(ends[:, :2], ends[:, 2:]), np.maximum(ends[:, :2], ends[:, 2:])
    high = np.maximum(high, low + 1e-3)
    around = windows_around(np.concatenate([low, high - low], axis=1), sizes, margin)
    policy = POLICIES["dermoscopy"]
    moved = jittered(around, box_jitter(policy, seed, 0, 0, 7))
    crops = within(parameters(policy, seed, 0, 0, 7), moved)
    for each in (around, moved, crops):
        assert each.anchor.dtype == each.extent.dtype == np.float32
        assert (each.anchor >= 0).all()
        assert (each.extent > 0).all()
        assert (each.anchor + each.extent <= 1).all()
    inside = np.minimum(high, 1)
    assert (around.anchor <= low + 1e-5).all()
    assert (around.anchor + around.extent >= inside - 1e-5).all()


def test_jitter_moves_lesions_and_leaves_whole_images() -> None:
    some = windows((0.2, 0.3, 0.4, 0.5), (0, 0, 1, 1))
    rows = np.arange(500) % 2
    jitter = box_jitter(POLICIES["light"], 3, 2, 0, 500)
    moved = jittered(some[rows], jitter)
    np.testing.assert_array_equal(moved.extent[rows == 1], 1)
    np.testing.assert_array_equal(moved.anchor[rows == 1], 0)
    ratio = moved.extent[rows == 0] / some.extent[0]
    assert 1 / 1.15 - 1e-5 <= ratio.min() < 0.9
    assert 1.1 < ratio.max() <= 1.15 + 1e-5
    centres = moved.anchor + moved.extent / 2
    shift = (centres[rows == 0] - [0.4, 0.55]) / some.extent[0]
    assert abs(shift).max() <= 0.05 + 1e-5
    assert abs(shift.mean(axis=0)).max() < 0.01


def test_no_augmentation_means_no_jitter() -> None:
    some = windows((0.2, 0.3, 0.4, 0.5))
    same = jittered(some, box_jitter(POLICIES["none"], 0, 0, 0, 1))
    np.testing.assert_allclose(same.anchor, some.anchor, atol=1e-6)
    np.testing.assert_allclose(same.extent, some.extent, atol=1e-6)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(0, 999), st.integers(0, 500), st.integers(1, 40))
def test_jitter_is_a_function_of_the_position(seed: int, epoch: int, start: int, count: int) -> None:
    whole = box_jitter(POLICIES["dermoscopy"], seed, epoch, 0, start + count)
    part = box_jitter(POLICIES["dermoscopy"], seed, epoch, start, count)
    np.testing.assert_array_equal(whole.shift[start:], part.shift)
    np.testing.assert_array_equal(whole.zoom[start:], part.zoom)
    ranks = [part[stream.rank_slice(rank, 3)] for rank in range(3)]
    assert sorted(np.concatenate([each.zoom for each in ranks])) == sorted(part.zoom)


def test_boxes_have_random_numbers_of_their_own() -> None:
    drawn = stream._uniform(stream._words(1, stream._BOX, 0, 0, 8))
    others = stream._uniform(stream._words(1, stream._AUGMENT, 0, 0, 8))
    assert not np.isin(drawn, others).any()


def test_the_graph_sees_the_window_as_pil_crops_it() -> None:
    image = picture(160, 120)
    encoded = jpeg(image, subsampling=0)
    around = windows((0.25, 0.5, 0.5, 0.375))
    (batch,) = all_of([evaluation_input([encoded], SQUARE, windows=around)], SQUARE)
    decoded = Image.open(io.BytesIO(encoded.tobytes()))
    part = decoded.crop((80, 30, 140, 90))
    exact = io.BytesIO()
    part.save(exact, "PNG")
    expected = reference(np.frombuffer(exact.getvalue(), dtype=np.uint8), SQUARE)
    assert (batch[0] - expected).abs().max() < 1.01 * ONE_LEVEL


def test_a_window_of_the_whole_image_changes_nothing() -> None:
    encoded = jpeg(picture(90, 70))
    whole = windows((0, 0, 1, 1))
    plain, windowed = (all_of([evaluation_input([encoded], SQUARE, windows=each)], SQUARE)[0] for each in (None, whole))
    assert torch.equal(plain, windowed)
    policy = POLICIES["dermoscopy"]
    drawn = parameters(policy, 3, 0, 0, 1)
    through = within(drawn, jittered(whole, box_jitter(policy, 3, 0, 0, 1)))
    assert torch.equal(*(all_of([training_input([encoded], each, SQUARE)], SQUARE)[0] for each in (drawn, through)))


@pytest.fixture(scope="module")
def samples(dataset: Dataset) -> Samples:
    rng = np.random.default_rng(0)
    n = len(dataset.manifest)
    boxes = np.concatenate([rng.uniform(0.1, 0.5, (n, 2)), rng.uniform(0.1, 0.4, (n, 2))], axis=1)
    boxes[::5] = [0, 0, 1, 1]
    around = windows_around(boxes, dataset.manifest[["height", "width"]].to_numpy(), 0.3)
    return replace(all_samples(dataset), windows=around)


def test_loaders_show_the_windows(samples: Samples) -> None:
    n = len(samples.rows)
    whole_images = torch.cat(
        [images.clone() for images, _ in EvaluationLoader(replace(samples, windows=None), FRAME, n, World())]
    )
    lesions = torch.cat([images.clone() for images, _ in EvaluationLoader(samples, FRAME, n, World())])
    same = (whole_images == lesions).flatten(1).all(dim=1).numpy()
    assert samples.windows is not None
    np.testing.assert_array_equal(same, (samples.windows.extent == 1).all(axis=1))
    training = TrainingLoader(samples, FRAME, 8, "none", False, 5, World())
    for batch in training.epoch(0):
        assert (batch.images - lesions[batch.samples]).abs().max() < 1e-5


def test_ranks_together_see_the_same_windows(samples: Samples) -> None:
    alone = [
        batch.images.clone() for batch in TrainingLoader(samples, FRAME, 8, "dermoscopy", True, 5, World()).epoch(1)
    ]
    loaders = [TrainingLoader(samples, FRAME, 8, "dermoscopy", True, 5, World(rank, 2)) for rank in range(2)]
    for step, shares in enumerate(zip(*(loader.epoch(1) for loader in loaders), strict=True)):
        for rank, share in enumerate(shares):
            assert torch.equal(share.images, alone[step][rank::2])


def test_a_substitute_of_a_corrupt_image_is_seen_by_its_own_window(samples: Samples) -> None:
    broken = replace(samples, corrupt=np.array([3]))
    chosen = broken.windows_of(np.array([3]))
    assert chosen is not None
    assert samples.windows is not None
    np.testing.assert_array_equal(chosen.anchor, samples.windows.anchor[[4]])

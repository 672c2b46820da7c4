from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import TruncatedSVD
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import normalize

from melanoma_dist.metrics import novelty

RNG = np.random.default_rng(0)


def cloud(count: int, width: int = 100) -> np.ndarray:
    """Features with a common part, as those behind a ReLU."""
    return (np.abs(RNG.normal(size=(count, width))) * np.linspace(2, 0.1, width) + 1).astype(np.float32)


def test_the_distance_is_the_cosine_distance_of_the_fifth_neighbour() -> None:
    training, images = normalize(cloud(200)), normalize(cloud(30))
    expected, _ = NearestNeighbors(n_neighbors=5, metric="cosine").fit(training).kneighbors(images)
    np.testing.assert_allclose(novelty.distance(images, training), expected[:, 4], atol=1e-6)


def test_the_basis_is_that_of_the_largest_singular_values() -> None:
    vectors = normalize(cloud(300))
    basis = novelty.principal_basis(vectors)
    assert basis.shape == (100, novelty.DIMENSIONS)
    np.testing.assert_allclose(basis.T @ basis, np.eye(novelty.DIMENSIONS), atol=1e-5)
    oracle = TruncatedSVD(novelty.DIMENSIONS, algorithm="arpack").fit(vectors.astype(np.float64))
    np.testing.assert_allclose(np.linalg.norm(vectors @ basis, axis=0), oracle.singular_values_, rtol=1e-3)


def test_images_from_elsewhere_are_farther_than_the_limit() -> None:
    vectors = normalize(cloud(1000))
    basis = novelty.principal_basis(vectors[:800])
    training, unseen = vectors[:800] @ basis, vectors[800:] @ basis
    limit = novelty.limit(novelty.distance(unseen, training))
    assert (novelty.distance(unseen, training) > limit).mean() == pytest.approx(0.01, abs=0.005)
    others = normalize(cloud(1000)[:, ::-1] * RNG.choice([0.1, 1, 3], (1000, 100)))
    assert (novelty.distance(others @ basis, training) > limit).mean() > 0.95


def test_few_images_and_empty_features_are_no_errors() -> None:
    training = normalize(cloud(3))
    assert np.isfinite(novelty.distance(training, training)).all()
    assert novelty.distance(training[:0], training).shape == (0,)


def test_images_that_all_have_copies_leave_a_limit_that_divides() -> None:
    training = normalize(np.repeat(cloud(20), 6, axis=0))
    limit = novelty.limit(novelty.distance(training[::6], training))
    assert limit > 0
    assert (novelty.distance(training[::6], training) / limit < 1).all()

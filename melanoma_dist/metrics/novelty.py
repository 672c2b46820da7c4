"""How unlike the training images an image is, in the feature space of a network.

The distance of an image is one minus the cosine similarity of its features to those of the k-th most similar training
image (Sun et al. 2022, "Out-of-distribution detection with deep nearest neighbors"). Features are not centred: without
their common part, noise and screenshots lie between the training images.

Unit vectors are stored in few dimensions, those of their largest singular values. The similarity of two images is the
product of their coordinates there: what lies outside makes an image unlike all others.

Shapes: n images, C features, d dimensions.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float32]

DIMENSIONS = 64
NEIGHBOUR = 5
"""k: a single training image that is as odd makes no image familiar."""
QUANTILE = 0.99
"""Share of the out-of-fold images that are not called novel."""
_ROUNDING = 1e-3  # of a distance between coordinates of 16 bits


def principal_basis(vectors: Array) -> Array:
    """The directions [C, d] with the most of the vectors [n, C]: the first right singular vectors."""
    _, directions = np.linalg.eigh((vectors.T @ vectors).astype(np.float64))
    return np.ascontiguousarray(directions[:, ::-1][:, :DIMENSIONS], dtype=np.float32)


def distance(images: Array, training: Array) -> Array:
    """The distance [n] of images [n, d] from training images [m, d], both in coordinates of the basis."""
    neighbour = min(NEIGHBOUR, len(training))
    # One product per image: in a larger one, its last digits would depend on the images beside it.
    nearest = [np.partition(training @ image, -neighbour)[-neighbour] for image in images]
    return 1 - np.asarray(nearest, dtype=np.float32)


def limit(distances: Array) -> float:
    """The distance from which an image is novel, by those of images that the network did not train on.

    Never below what 16 bits per coordinate round away: where most images have copies, the quantile may be 0.
    """
    return max(float(np.quantile(distances, QUANTILE)), _ROUNDING)

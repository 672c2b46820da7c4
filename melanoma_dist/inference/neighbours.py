"""Compares new images with those of the run, by the features of its folds' models.

Shapes: k folds, n new images, m images of the run, d dimensions of a fold's feature space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from melanoma_dist.artifacts.features import FeatureSpace, read_features
from melanoma_dist.data.folds import read_folds
from melanoma_dist.errors import DataError
from melanoma_dist.metrics import novelty
from melanoma_dist.train.unit import Unit

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Neighbours:
    """The most similar images of a run, for n new ones, the most similar first."""

    image_ids: npt.NDArray[np.str_]
    """[n, c] ids."""
    similarity: Array
    """[n, c] cosine similarity of the features, the mean over the folds: 1 is equal."""


@dataclass(frozen=True)
class RunFeatures:
    """The images of a run, as the models of its folds see them."""

    image_ids: npt.NDArray[np.str_]
    """[m] in the order of the run's folds."""
    folds: npt.NDArray[np.int64]
    """[m] the fold that did not train on each."""
    spaces: tuple[FeatureSpace, ...]
    """[k]"""

    @classmethod
    def read(cls, units: Sequence[Unit]) -> RunFeatures | None:
        """Those of a run's folds; None if one has none. Raises DataError if they are not of the run's images."""
        spaces = [read_features(unit.folder, unit.fingerprint) for unit in units]
        known = tuple(space for space in spaces if space is not None)
        if len(known) < len(spaces):
            return None
        folds = read_folds(units[0].run / "folds.parquet")
        for unit, space in zip(units, known, strict=True):
            if len(space.images) != len(folds):
                raise DataError(f"{unit.folder}: the features are not of the run's {len(folds)} images.")
        return cls(folds["image_id"].to_numpy(dtype=np.str_), folds["fold"].to_numpy(dtype=np.int64), known)

    def novelty(self, coordinates: tuple[Array, ...]) -> Array:
        """How unlike the training images new ones are, [n]: from 1 on, more than 99 % of the run's own unseen images.

        ``coordinates``: [n, d] of each fold. Each fold compares with the images that it was trained on; its distance is
        divided by its own limit, and the folds are averaged.
        """
        ratios = [
            novelty.distance(own, space.images[self.folds != fold]) / space.limit
            for fold, (own, space) in enumerate(zip(coordinates, self.spaces, strict=True))
        ]
        return np.asarray(np.mean(ratios, axis=0), dtype=np.float32)

    def nearest(self, coordinates: tuple[Array, ...], count: int) -> Neighbours:
        """The ``count`` most similar images of the run, or all of a smaller one."""
        similarity = np.mean(
            [own @ space.images.T for own, space in zip(coordinates, self.spaces, strict=True)], axis=0
        )
        order = np.argsort(-similarity, axis=1, kind="stable")[:, :count]
        ordered = np.take_along_axis(similarity, order, axis=1).astype(np.float32)
        return Neighbours(self.image_ids[order], ordered)

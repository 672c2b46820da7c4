"""Scores images with an ensemble, chunk by chunk: few of them are in memory at a time.

Shapes: k folds, L labels, b images of a chunk.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from melanoma_dist.app.inspection import InspectedPhoto
from melanoma_dist.data.photo import Photo
from melanoma_dist.inference.ensemble import Ensemble
from melanoma_dist.inference.lesion_masks import Lesion
from melanoma_dist.inference.neighbours import RunFeatures
from melanoma_dist.inference.photographs import Photographs

_CHUNK_ON_CPU = 64  # images between two signs of progress; a kill loses no more
_CHUNK_ON_GPU = 512  # each chunk builds the graph anew, for which a GPU would wait


@dataclass(frozen=True)
class Scores:
    """The answers of an ensemble for one image."""

    folds: npt.NDArray[np.float32]
    """[k, L] calibrated probabilities of the folds."""
    probability: npt.NDArray[np.float32]
    """[L] their mean."""
    positive: npt.NDArray[np.bool_]
    """[L] whether the mean reaches the label's threshold."""
    novelty: float
    """How unlike the training images it is, see `RunFeatures.novelty`; NaN for a run without features."""
    nearest: tuple[tuple[str, float], ...] = ()
    """Ids of the most similar training images with their similarity; empty unless asked for, or without features."""
    lesion: Lesion | None = None
    """Where the lesion is and what the models see; None for a run that sees whole images."""


@dataclass(frozen=True)
class KnownImage:
    """An image of the run's own data set that another one is, or copies."""

    image_id: str
    correlation: float | None = None
    """Of the fine details of a copy with the image; None for the same file."""

    def __str__(self) -> str:
        if self.correlation is None:
            return f"the same file as {self.image_id}"
        return f"a copy of {self.image_id} (details correlate at {self.correlation:.3f})"


@dataclass(frozen=True)
class ScoredImage:
    """An image after it was read and, if it could be read, predicted."""

    photo: Photo
    blur: float
    scores: Scores | None
    """None if the image cannot be read."""
    trained_as: KnownImage | None = None
    """The training image that it is or copies, if one is known."""
    held_out_as: KnownImage | None = None
    """The image of the run's own data set that it is or copies and that no fold was trained on."""
    about: Mapping[str, str] = field(default_factory=dict)
    """What was known of the patient."""

    @property
    def error(self) -> str:
        """Why the image cannot be read; empty if it can."""
        return "" if self.photo.source else self.photo.failures[0][1]


def chunk_size(ensemble: Ensemble, batch_size: int) -> int:
    """Readable images of a chunk: whole batches, so that chunks have the batches of a single prediction of all."""
    least = _CHUNK_ON_CPU if ensemble.world.gpu is None else _CHUNK_ON_GPU
    return -(-least // batch_size) * batch_size


def chunks(photos: Iterable[InspectedPhoto], size: int) -> Iterator[list[InspectedPhoto]]:
    """Lists of images of which ``size`` are readable, and the rest."""
    chunk: list[InspectedPhoto] = []
    count = 0
    for each in photos:
        chunk.append(each)
        count += each.photo.jpeg is not None
        if count == size:
            yield chunk
            chunk, count = [], 0
    if chunk:
        yield chunk


def score_photos(
    ensemble: Ensemble, photos: Sequence[InspectedPhoto], tta: int, batch_size: int, neighbours: int = 0
) -> Iterator[ScoredImage]:
    """Yield the photos in order, scored together. ``neighbours``: number of similar training images to look up."""
    readable = [each for each in photos if each.photo.jpeg is not None]
    scores = iter(_predict(ensemble, readable, tta, batch_size, neighbours) if readable else [])
    for each in photos:
        own = next(scores) if each.photo.jpeg is not None else None
        yield ScoredImage(each.photo, each.blur, own, about=each.about)


def _predict(
    ensemble: Ensemble, photos: list[InspectedPhoto], tta: int, batch_size: int, neighbours: int
) -> list[Scores]:
    photographs = Photographs.of([each.photo for each in photos], [each.about for each in photos])
    predictions = ensemble.predict(photographs, tta, batch_size, features=True)
    folds = predictions.calibrated.transpose(1, 0, 2)
    novelty, nearest = _compare(ensemble.run_features, predictions.features, len(photos), neighbours)
    lesions: Sequence[Lesion | None] = predictions.lesions or [None] * len(photos)
    columns = (folds, predictions.probability, predictions.positive, novelty, nearest, lesions)
    return [Scores(*each) for each in zip(*columns, strict=True)]


def _compare(
    known: RunFeatures | None, features: tuple[npt.NDArray[np.float32], ...], count: int, neighbours: int
) -> tuple[npt.NDArray[np.float32], list[tuple[tuple[str, float], ...]]]:
    """The novelty of each image, and its nearest training images."""
    if known is None:
        return np.full(count, np.nan, dtype=np.float32), [()] * count
    if not neighbours:
        return known.novelty(features), [()] * count
    similar = known.nearest(features, neighbours)
    pairs = zip(similar.image_ids.tolist(), similar.similarity.tolist(), strict=True)
    return known.novelty(features), [tuple(zip(ids, values, strict=True)) for ids, values in pairs]

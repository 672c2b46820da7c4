"""Recognises images of a run's own data set, above all those that its folds were trained on.

Two files with the same bytes are the same image. Other copies are recognised as `data prepare` recognises them: a
perceptual hash proposes, the pixels confirm. A cropped, mirrored or rotated copy is not recognised.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from melanoma_dist.app.scoring import KnownImage, ScoredImage
from melanoma_dist.data.duplicates import MAX_DISTANCE, MIN_CORRELATION, as_words, differing_bits, fine_details
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.data.photo import Photo
from melanoma_dist.evaluate.holdout.contamination import training_images
from melanoma_dist.inference.images import Images
from melanoma_dist.inference.trained_run import TrainedRun
from melanoma_dist.storage.images import open_image


class KnownImages:
    """The images of a run's own data set, and those that its start weights were trained on."""

    def __init__(self, run: TrainedRun, own: Dataset) -> None:
        """Raises ConfigError if the images of the start weights cannot be known."""
        self.own = own
        """The run's data set."""
        trained = training_images(run, own)
        ids = trained[0].table["image_id"]
        self._trained = [CopyIndex(images) for images in trained]
        self._held_out = [CopyIndex(Images.of(own, ~own.manifest["image_id"].isin(ids).to_numpy()))]

    def mark(self, image: ScoredImage) -> ScoredImage:
        """The image with what is known of it."""
        trained = None if image.error else _first(self._trained, image.photo)
        held_out = None if image.error or trained else _first(self._held_out, image.photo)
        return replace(image, trained_as=trained, held_out_as=held_out)


def _first(indexes: Sequence[CopyIndex], photo: Photo) -> KnownImage | None:
    return next((known for index in indexes if (known := index.find(photo))), None)


class CopyIndex:
    """Finds the image of a data set that a photo is a copy of.

    A photo is compared with the hashes of all images: for 58,000 of them that takes a millisecond.
    """

    def __init__(self, images: Images) -> None:
        table = images.table
        self._ids = table["image_id"].to_numpy(dtype=object)
        self._by_file = dict(zip(table["source_sha256"], self._ids, strict=True))
        self._hashes = as_words(table["perceptual_hash"])
        self._rows, self._store = images.rows, images.store

    def find(self, photo: Photo) -> KnownImage | None:
        """Return the image; None if there is none. ``photo`` must be readable."""
        if photo.source_sha256 in self._by_file:
            return KnownImage(str(self._by_file[photo.source_sha256]))
        near = np.flatnonzero(differing_bits(self._hashes, as_words([photo.perceptual_hash])) <= MAX_DISTANCE)
        if not len(near):
            return None
        own = fine_details(open_image(photo.jpeg or b""))
        correlations = [float(np.vdot(own, self._details(int(self._rows[at])))) for at in near]
        best = int(np.argmax(correlations))
        if correlations[best] < MIN_CORRELATION:
            return None
        return KnownImage(str(self._ids[near[best]]), correlations[best])

    def _details(self, row: int) -> npt.NDArray[np.float32]:
        return fine_details(open_image(self._store.jpeg(row).tobytes()))

"""Recognises images of a run's own data set, above all those that its folds were trained on.

Two files with the same bytes are the same image. Other copies are recognised as `data prepare` recognises them: a
perceptual hash proposes, the pixels confirm. A cropped, mirrored or rotated copy is not recognised.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice

import numpy as np
import pandas as pd
from PIL import Image

from melanoma_dist.app.scoring import ScoredImage
from melanoma_dist.data.duplicates import near_duplicates
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.data.photo import Photo
from melanoma_dist.evaluate.holdout.contamination import training_images
from melanoma_dist.inference.images import Images
from melanoma_dist.inference.trained_run import TrainedRun
from melanoma_dist.storage.images import open_image

_AT_ONCE = 512  # images compared together: each comparison sorts the hashes of the whole data set


class KnownImages:
    """The images of a run's own data set, and those that its start weights were trained on."""

    def __init__(self, run: TrainedRun, own: Dataset) -> None:
        """Raises ConfigError if the images of the start weights cannot be known."""
        self.own = own
        """The run's data set."""
        self._trained = training_images(run, own)
        ids = self._trained[0].table["image_id"]
        self._held_out = [Images.of(own, ~own.manifest["image_id"].isin(ids).to_numpy())]

    def mark(self, images: Iterable[ScoredImage]) -> Iterator[ScoredImage]:
        """Yield the images with what is known of them, and without their pixels."""
        stream = iter(images)
        while block := list(islice(stream, _AT_ONCE)):
            readable = {at: image.photo for at, image in enumerate(block) if not image.error}
            trained = find_copies(readable, self._trained)
            held_out = find_copies({at: photo for at, photo in readable.items() if at not in trained}, self._held_out)
            for at, image in enumerate(block):
                photo = replace(image.photo, jpeg=None)
                yield replace(image, photo=photo, trained_as=trained.get(at, ""), held_out_as=held_out.get(at, ""))


def find_copies(photos: dict[int, Photo], known: Sequence[Images]) -> dict[int, str]:
    """Map the keys of the photos that are known images or copies of them to words for that."""
    names: dict[int, str] = {}
    for images in known:
        names |= _same_files(photos, images)
        names |= _near_copies({at: photo for at, photo in photos.items() if at not in names}, images)
    return names


def _same_files(photos: dict[int, Photo], images: Images) -> dict[int, str]:
    ids = dict(zip(images.table["source_sha256"], images.table["image_id"], strict=True))
    return {
        at: f"the same file as {ids[photo.source_sha256]}" for at, photo in photos.items() if photo.source_sha256 in ids
    }


def _near_copies(photos: dict[int, Photo], images: Images) -> dict[int, str]:
    keys, table, reader = list(photos), images.table, images.store
    if not keys or table.empty:
        return {}

    def pixels(position: int) -> Image.Image:
        if position < len(keys):
            return open_image(photos[keys[position]].jpeg or b"")
        return open_image(reader.jpeg(int(images.rows[position - len(keys)])).tobytes())

    own = pd.Series([photo.perceptual_hash for photo in photos.values()], dtype="str")
    hashes = pd.concat([own, table["perceptual_hash"]], ignore_index=True)
    pairs = near_duplicates(hashes, pixels, np.arange(len(hashes)) >= len(keys))
    best = pairs[pairs["joined"]].sort_values("correlation", kind="stable").drop_duplicates("first", keep="last")
    first, second = (best[end].to_numpy(dtype=np.int64) for end in ("first", "second"))
    names = table["image_id"].to_numpy()[second - len(keys)]
    return {
        keys[at]: f"a copy of {name} (details correlate at {correlation:.3f})"
        for at, name, correlation in zip(first, names, best["correlation"], strict=True)
    }

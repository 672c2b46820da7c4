"""Store the most confident errors of a run as pictures with saliency maps.

Every evaluation rewrites the report, and the images may be elsewhere by then. RUN/gallery/ thus holds small copies.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from PIL import Image

from melanoma_dist.artifacts.gallery import GALLERY, Gallery, GalleryImage, GalleryKind, write_gallery
from melanoma_dist.config.label_sets import label_name
from melanoma_dist.data.labels import TRUE, known_labels
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.inference.ensemble import Ensemble
from melanoma_dist.inference.explanation import overlay
from melanoma_dist.inference.images import Images
from melanoma_dist.inference.saliency import grad_cam
from melanoma_dist.storage import atomic
from melanoma_dist.storage.images import open_image
from melanoma_dist.train.predict import inputs_of

SHOWN = 6
"""Errors of each kind."""
_SIDE = 320  # pixels of a picture's longer side
_QUALITY = 80
_NOTE = (
    "Out of fold, at most one image of a lesion. Beside each image: the evidence of its fold's model, against {name} "
    "in missed ones and for it in false alarms (Grad-CAM, brighter is more). It shows what a prediction rests on, not "
    "whether that is a medical reason."
)


def write_error_gallery(
    folder: Path, ensemble: Ensemble, dataset: Dataset, table: pd.DataFrame, threshold: float, limit: int = SHOWN
) -> None:
    """Write RUN/gallery/: the most confident missed images and false alarms of the headline label, ``limit`` of each.

    ``table`` has the out-of-fold predictions of ``folder``'s run; errors are relative to ``threshold``. Replaces an
    earlier gallery. Computes on the CPU: a dozen images. Raises DataError for corrupt shards.
    """
    place = folder / GALLERY
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    label = ensemble.labels.headline
    errors = _errors(table, label, threshold, limit)
    album = _Album(dataset, place, ensemble)
    images = {image.image_id: image for image in _with_pictures(ensemble, album, pd.concat(errors.values()))}
    kinds = [GalleryKind(title, tuple(images[name] for name in rows["image_id"])) for title, rows in errors.items()]
    write_gallery(folder, Gallery(_NOTE.format(name=label_name(label)), tuple(kinds)))


def _errors(table: pd.DataFrame, label: str, threshold: float, limit: int) -> dict[str, pd.DataFrame]:
    called = table[label] >= np.float32(threshold)
    truth = table[label + TRUE]
    missed = table[(truth == 1) & ~called].sort_values([label, "image_id"])
    alarms = table[(truth == 0) & called].sort_values([label, "image_id"], ascending=[False, True])
    kinds = {f"Missed: {label} with the lowest probabilities": missed,
             f"False alarms: others with the highest probabilities of {label}": alarms}  # fmt: skip
    return {title: rows.drop_duplicates("group").head(limit) for title, rows in kinds.items()}


class _Album:
    """Images of a data set as small JPEG files."""

    def __init__(self, dataset: Dataset, place: Path, ensemble: Ensemble) -> None:
        self.dataset, self.shards, self._place = dataset, ShardReader(dataset), place
        self._rows = pd.Index(dataset.manifest["image_id"])
        self._windows = ensemble.windows(Images(dataset, np.arange(len(dataset.manifest), dtype=np.int64)))

    def rows(self, image_ids: pd.Series[str]) -> npt.NDArray[np.int64]:
        """Return rows of the manifest, [n]."""
        return np.asarray(self._rows.get_indexer(pd.Index(image_ids)), dtype=np.int64)

    def small(self, row: int) -> Image.Image:
        """Return a small copy of what the models see of an image: all of it, or its lesion."""
        with open_image(self.shards.jpeg(row).tobytes()) as image:
            image.draft("RGB", (2 * _SIDE, 2 * _SIDE))
            picture = image.convert("RGB")
        if self._windows is not None:
            (top, left), (height, width) = self._windows.anchor[row], self._windows.extent[row]
            box = np.array([left, top, left + width, top + height]) * (2 * picture.size)
            picture = picture.crop(tuple(np.round(box).astype(int).tolist()))
        picture.thumbnail((_SIDE, _SIDE))
        return picture

    def save(self, picture: Image.Image, name: str) -> str:
        """Write a picture and return the name of its file."""
        atomic.write_file(
            self._place / f"{name}.jpg",
            lambda aside: picture.save(aside, format="JPEG", quality=_QUALITY, optimize=True),
        )
        return f"{name}.jpg"

    def diagnosis(self, row: int) -> str:
        """Return the known labels of the image."""
        return known_labels(self.dataset.manifest.iloc[row])


def _with_pictures(ensemble: Ensemble, album: _Album, errors: pd.DataFrame) -> Iterator[GalleryImage]:
    label = ensemble.labels.headline
    for group, rows in errors.groupby("fold"):
        fold = int(str(group))
        missed = (rows[label + TRUE] == 1).to_numpy()
        maps, why = _maps(ensemble, fold, album, album.rows(rows["image_id"]), missed)
        for at, (image_id, probability) in enumerate(zip(rows["image_id"], rows[label], strict=True)):
            speaks = "against" if missed[at] else "for"
            row = int(album.rows(pd.Series([image_id]))[0])
            picture, name = album.small(row), file_name(image_id, row)
            evidence = None if maps is None else maps[at]
            blank = evidence is not None and not evidence.any()
            saliency = None if evidence is None or blank else album.save(overlay(picture, evidence), f"{name}-saliency")
            yield GalleryImage(
                image_id,
                fold,
                float(probability),
                album.diagnosis(row),
                album.save(picture, name),
                saliency,
                speaks,
                f"nothing in the image speaks {speaks} {label_name(label)}" if blank else why,
                picture.width,
                picture.height,
            )


def file_name(image_id: str, row: int) -> str:
    """A name for the pictures of an image: its id, or its row where an id has spaces, dots or other scripts."""
    return image_id if re.fullmatch(r"[\w-]+", image_id, re.ASCII) else f"row-{row}"


def _maps(
    ensemble: Ensemble, fold: int, album: _Album, rows: npt.NDArray[np.int64], missed: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float32] | None, str]:
    """Return the evidence [n, h, w], 0 to 1, for the wrong prediction of some rows' images; or None, and why."""
    if not ensemble.units[fold].model.is_file():
        return None, "the fold's weights are not in the run"
    loader = ensemble.loader(Images(album.dataset, rows), len(rows))
    images, *metadata = (torch.cat(each) for each in zip(*(inputs_of(*batch) for batch in loader), strict=True))
    column = ensemble.labels.headline_column
    evidence, why = grad_cam(ensemble.fold_model(fold), images, column, torch.tensor(missed), *metadata)
    return (None if evidence is None else evidence.numpy()), why

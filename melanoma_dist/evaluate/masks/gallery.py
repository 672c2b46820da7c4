"""Store the worst, the median and the best masks of a segmentation run as pictures with both outlines.

Every evaluation rewrites the report, and the images may be elsewhere by then. RUN/gallery/ thus holds small copies.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from PIL import Image, ImageColor
from scipy import ndimage

from melanoma_dist.artifacts.gallery import GALLERY
from melanoma_dist.artifacts.mask_gallery import MaskGallery, MaskPicture, MaskPictures, write_mask_pictures
from melanoma_dist.artifacts.run_folder import RunFolder
from melanoma_dist.config.run import RunConfig
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.data.masks import decode_mask
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.evaluate.report.error_gallery import file_name
from melanoma_dist.inference.images import Images
from melanoma_dist.inference.segmenter import load_fold
from melanoma_dist.input.loader import EvaluationLoader
from melanoma_dist.input.samples import Samples
from melanoma_dist.metrics.segmentation import Mask, boundary
from melanoma_dist.pages.svg import ORANGE, SKY
from melanoma_dist.storage import atomic
from melanoma_dist.storage.images import open_image
from melanoma_dist.train.fold_data import input_format_of
from melanoma_dist.train.mask_predict import mask_at, mask_probabilities
from melanoma_dist.train.unit import Unit
from melanoma_dist.world import World

SHOWN = 4
"""Images of each kind."""
_SIDE = 320  # pixels of a picture's longer side
_QUALITY = 80
_WIDTH = 2  # pixels of an outline
_NOTE = "Out of fold, at most one image of a lesion. Blue: the true outline. Orange: the predicted one."


def write_mask_gallery(config: RunConfig, dataset: Dataset, folder: RunFolder, scores: pd.DataFrame) -> None:
    """Write RUN/gallery/ for the out-of-fold ``scores`` of a run, in place of an earlier one.

    Computes on the CPU: a dozen images. Raises DataError for corrupt shards or weights.
    """
    place = folder.path / GALLERY
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    kinds = _kinds(scores)
    pictures: dict[str, MaskPicture] = {}
    for fold, rows in pd.concat(kinds.values()).drop_duplicates("image_id").groupby("fold"):
        unit = Unit(config, int(str(fold)), str(dataset.folder), dataset.fingerprint, folder.path.resolve())
        pictures |= {each.image_id: each for each in _pictures(unit, dataset, rows, place)}
    named = [MaskPictures(title, tuple(pictures[name] for name in rows["image_id"])) for title, rows in kinds.items()]
    write_mask_pictures(folder.path, MaskGallery(_NOTE, tuple(named)))


def _kinds(scores: pd.DataFrame) -> dict[str, pd.DataFrame]:
    ranked = scores.sort_values(["jaccard", "image_id"]).drop_duplicates("group")
    count = min(SHOWN, len(ranked))
    middle = (len(ranked) - count) // 2
    return {
        "Lowest Jaccard index": ranked[:count],
        "Around the median": ranked[middle : middle + count],
        "Highest Jaccard index": ranked[::-1][:count],
    }


def _pictures(unit: Unit, dataset: Dataset, rows: pd.DataFrame, place: Path) -> Iterator[MaskPicture]:
    """Draw images of one fold, with the masks that its model predicts."""
    images = Images.of(dataset, dataset.manifest["image_id"].isin(rows["image_id"]).to_numpy())
    jaccard, shards = rows.set_index("image_id")["jaccard"], ShardReader(dataset)
    predicted = _predicted(unit, images)
    for row, image_id, mask in zip(images.rows, images.image_ids, predicted, strict=True):
        truth = decode_mask(shards.mask(int(row)) or b"")
        picture = _drawn(shards.jpeg(int(row)).tobytes(), truth, mask)
        name = f"{file_name(image_id, int(row))}.jpg"

        def save(aside: Path, picture: Image.Image = picture) -> None:
            picture.save(aside, format="JPEG", quality=_QUALITY, optimize=True)

        atomic.write_file(place / name, save)
        yield MaskPicture(image_id, unit.fold, float(jaccard[image_id]), name, picture.width, picture.height)


def _predicted(unit: Unit, images: Images) -> Iterator[Mask]:
    model = load_fold(unit).eval()
    samples = Samples(images.store, images.rows, images.truth(()), images.largest)
    loader = EvaluationLoader(samples, input_format_of(unit), len(images.rows), World())
    sizes = images.table[["height", "width"]].to_numpy().tolist()
    for pixels, batch in loader:
        with torch.inference_mode():
            probabilities = mask_probabilities(model, pixels, unit.config.input.tta)
        for sample, probability in zip(batch.samples[: batch.count], probabilities, strict=False):
            height, width = sizes[sample]
            yield mask_at(probability, height, width, unit.config.threshold)


def _drawn(jpeg: bytes, truth: Mask, predicted: Mask) -> Image.Image:
    with open_image(jpeg) as image:
        picture = image.convert("RGB")
    picture.thumbnail((_SIDE, _SIDE))
    pixels = np.asarray(picture).copy()
    for mask, colour in ((truth, SKY), (predicted, ORANGE)):
        pixels[_outline(mask, picture.size)] = ImageColor.getrgb(colour)
    return Image.fromarray(pixels)


def _outline(mask: Mask, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    small = np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.BILINEAR)) >= 128
    edge: npt.NDArray[np.bool_] = ndimage.binary_dilation(boundary(small), iterations=_WIDTH - 1)
    return edge

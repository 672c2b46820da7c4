"""The first stage of an export whose models see lesions: the segmenter's file, and what the models see by its answers.

`standalone/lesion.py`, which travels with the files, finds the lesions here as it does in the hands of a user.

Shapes: n images of H rows and W columns, C channels that the models see, S pixels a side of the segmenter's input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from melanoma_dist.app.export.description import Description
from melanoma_dist.app.export.graph import SegmenterGraph
from melanoma_dist.app.export.parity import Answer, Parity, ParityImage, Reference, decoded
from melanoma_dist.app.export.standalone import lesion
from melanoma_dist.config.region import RegionConfig
from melanoma_dist.errors import MelanomaDistError
from melanoma_dist.inference.lesion_masks import LEAST_AREA, Lesion
from melanoma_dist.inference.photographs import Photographs
from melanoma_dist.inference.segmenter import TrainedSegmenter, fingerprint
from melanoma_dist.train import region
from melanoma_dist.train.fold_data import input_format_of

SEGMENTER = "segmenter"
"""Name of the file, without its suffix."""
# The script has no types.
_find_lesion: Callable[..., dict[str, Any]] = lesion.find_lesion
_see: Callable[..., npt.NDArray[np.uint8]] = lesion.see
_MOST = 1.01  # pixels that an edge of a box may differ by: a probability that rounding moved over the threshold


def lesion_rule(sight: RegionConfig, segmenter: TrainedSegmenter) -> Description:
    """How models see an image: what `lesion.py` takes, and which segmenter it is."""
    image_format = input_format_of(segmenter.units[0])
    return {
        "file": SEGMENTER,
        "region": sight.region,
        "mask": sight.mask,
        "margin": sight.region_margin,
        "threshold": segmenter.threshold,
        "least_area": LEAST_AREA,
        "least_quality": region.LOW_QUALITY,
        "encoder": segmenter.config.model.backbone,
        "image_size": image_format.size,
        "mean": list(image_format.mean),
        "std": list(image_format.std),
        "tta": segmenter.config.input.tta,
        "folds": len(segmenter.units),
        "fingerprint": fingerprint(segmenter),
    }


def segmenter_graph(segmenter: TrainedSegmenter) -> SegmenterGraph:
    """The graph of a segmenter: the mean of its folds, in the orientations of its run."""
    return SegmenterGraph(segmenter.models, input_format_of(segmenter.units[0]), segmenter.config.input.tta)


def compare_lesions(
    name: str, answer: Answer, reference: Reference, rule: Description, segmenter: TrainedSegmenter
) -> tuple[Parity, list[ParityImage]]:
    """Compare the probabilities and boxes of a segmenter's file with those of `predict`.

    Returns the images with what the models see of them by the file. Where rounding moved an edge of a box by a pixel,
    it is what `predict` sees; the parity counts such images as its calls. Raises MelanomaDistError for a lesion that
    lies elsewhere.
    """
    prepared = Photographs.prepare([image.data for image in reference.images], reference.size)
    differences: list[float] = []
    images: list[ParityImage] = []
    moved = 0
    targets = zip(_expected(segmenter, prepared), reference.expected.lesions, strict=True)
    for image, jpeg, (target, expected) in zip(reference.images, prepared.jpegs, targets, strict=True):
        pixels = decoded(jpeg)
        probability = answer(np.stack([pixels]))[0][0]
        differences.append(float(np.abs(probability - target).max()))
        own = _find_lesion(probability, pixels.shape[1], pixels.shape[0], rule)
        if _beside(own, expected, pixels.shape, f"{name}: the lesion of {image.name}"):
            own["window"] = np.array(expected.window, dtype=np.float32)
            moved += 1
        images.append(replace(image, view=_see(pixels, own, rule)))
    worst = int(np.argmax(differences))
    return Parity(name, len(images), differences[worst], images[worst].name, moved), images


def _expected(segmenter: TrainedSegmenter, images: Photographs) -> list[npt.NDArray[np.float32]]:
    """The probabilities [S, S] of each image in this program."""
    probabilities: list[npt.NDArray[np.float32]] = []
    for pixels, batch in segmenter.loader(images, 1):
        probabilities += list(segmenter.probabilities(pixels).cpu().numpy()[: batch.count])
    return probabilities


def _beside(own: dict[str, Any], expected: Lesion, shape: Sequence[int], what: str) -> bool:
    """Whether the lesion of a file has an edge a pixel beside that of `predict`.

    Raises MelanomaDistError for a lesion that lies elsewhere, or that one of them alone finds or trusts.
    """
    if bool(own["trusted"]) != expected.trusted or (own["box"] is None) != (expected.box is None):
        raise _another(what, "one of them alone finds and trusts it")
    if np.array_equal(own["window"], np.array(expected.window, dtype=np.float32)):
        return False
    distance = float(np.abs(_edges(own["box"], shape) - _edges(expected.box, shape)).max())
    if distance > _MOST:
        raise _another(what, f"an edge of its box is {distance:.1f} pixels off")
    return True


def _edges(box: Sequence[float] | npt.NDArray[np.float32] | None, shape: Sequence[int]) -> npt.NDArray[np.float64]:
    """Top, left, bottom and right of a box in pixels."""
    corner, extent = np.asarray(box, dtype=np.float64).reshape(2, 2)
    return np.concatenate([corner, corner + extent]) * (*shape[:2], *shape[:2])


def _another(what: str, detail: str) -> MelanomaDistError:
    return MelanomaDistError(
        f"{what} is another one than `predict` finds ({detail}). No file was kept. A segmenter that is hardly trained "
        "has masks that rounding changes: train it further, or try another --format."
    )

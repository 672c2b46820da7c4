"""Masks from a segmenter, the same way for the scores of a fold and for new images.

Shapes: b images, S pixels a side of the network's input, h and w pixels of an image as it is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from melanoma_dist.input.graph import ORIENTATIONS, Orientation
from melanoma_dist.metrics.segmentation import METRICS, Mask, score_mask


def mask_probabilities(model: nn.Module, images: torch.Tensor, tta: int = 1) -> torch.Tensor:
    """Return the probability of lesion for each pixel, float32 [b, S, S]: the mean over ``tta`` orientations.

    ``model`` maps images [b, 3, S, S] to logits [b, 1, S, S], and is in evaluation mode.
    """
    total = torch.zeros((len(images), *images.shape[2:]), dtype=torch.float32, device=images.device)
    for view in ORIENTATIONS[:tta]:
        logits = model(_oriented(images, view))
        total += _upright(torch.sigmoid(logits.float())[:, 0], view)
    return total / tta


def mask_at(probability: torch.Tensor, height: int, width: int, threshold: float) -> npt.NDArray[np.bool_]:
    """Return the mask of one image at its own size, bool [h, w]: its probability [S, S] is resized, then compared."""
    resized = functional.interpolate(
        probability[None, None], (height, width), mode="bilinear", antialias=True, align_corners=False
    )
    mask: npt.NDArray[np.bool_] = (resized[0, 0] >= threshold).cpu().numpy()
    return mask


def score_masks(probabilities: torch.Tensor, truths: Sequence[Mask], threshold: float) -> npt.NDArray[np.float64]:
    """Score the first masks of a batch of probabilities [b, S, S], each at the size of its true mask [h, w].

    Returns float64 [n, len(METRICS)], in the order of METRICS.
    """
    scores = np.zeros((len(truths), len(METRICS)))
    for at, (probability, truth) in enumerate(zip(probabilities.cpu(), truths, strict=False)):
        height, width = truth.shape
        scores[at] = astuple(score_mask(truth, mask_at(probability, height, width, threshold)))
    return scores


def _oriented(images: torch.Tensor, view: Orientation) -> torch.Tensor:
    """Mirror images [b, C, S, S] as the graph does, then exchange their axes."""
    images = images.flip(_axes(view, 2))
    return images.transpose(2, 3) if view.exchanged else images


def _upright(masks: torch.Tensor, view: Orientation) -> torch.Tensor:
    """Undo ``_oriented`` for masks [b, S, S]."""
    masks = masks.transpose(1, 2) if view.exchanged else masks
    return masks.flip(_axes(view, 1))


def _axes(view: Orientation, first: int) -> list[int]:
    return [first + axis for axis, mirrored in enumerate((view.down, view.across)) if mirrored]

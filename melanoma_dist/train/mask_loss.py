"""The loss of a segmenter: binary cross-entropy of the pixels, Dice and focal Tversky of each image.

Shapes: b images, S pixels a side. Masks are 0 to 1, or NaN where the mask is unknown.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

_SMOOTH = 1.0  # pixels: an image without lesion has a gradient, and no division by zero
_MISSED, _FALSE = 0.7, 0.3  # weights of missed and of false lesion in the Tversky index
_FOCUS = 0.75  # exponent, 1 / gamma for gamma 4/3: images that are nearly right count more than in the plain index
_LEAST = 1e-6  # the exponent's slope at 0 is infinite


class MaskLoss(nn.Module):
    """The sum over images with a known mask; the caller divides by their number in the global batch.

    An image counts by itself, never the batch as a whole: the loss does not depend on how images are grouped into
    ranks and micro-batches.
    """

    def __init__(self, dice_weight: float, tversky_weight: float = 0.0) -> None:
        """``tversky_weight``: of the focal Tversky loss, 0 to 1. ``dice_weight``: of the Dice loss in the rest."""
        super().__init__()
        self._dice_weight, self._tversky_weight = dice_weight, tversky_weight

    def forward(self, logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Logits and masks [b, 1, S, S] -> a scalar sum."""
        return self.of_images(logits, masks).sum()

    def of_images(self, logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Logits and masks [b, 1, S, S] -> the loss of each image [b], 0 where its mask is unknown."""
        logits, unknown = logits.float().flatten(1), masks.isnan().flatten(1)
        truth = torch.where(unknown, 0.0, masks.float().flatten(1))
        entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(1)
        probability = torch.sigmoid(logits)
        # Milletari et al. 2016 (V-Net), with sums in the denominator.
        overlap = 2 * (probability * truth).sum(1) + _SMOOTH
        dice = 1 - overlap / (probability.sum(1) + truth.sum(1) + _SMOOTH)
        loss = self._dice_weight * dice + (1 - self._dice_weight) * entropy
        if self._tversky_weight:
            tversky = _focal_tversky(probability, truth)
            loss = self._tversky_weight * tversky + (1 - self._tversky_weight) * loss
        return torch.where(unknown.any(1), 0.0, loss)


def _focal_tversky(probability: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """Probabilities and truths [b, S * S] -> the loss of each image [b], 0 to 1.

    Abraham and Khan 2019, "A novel focal Tversky loss function with improved attention U-Net for lesion segmentation",
    with their weights and exponent. Missed lesion counts more than false lesion.
    """
    overlap, missed = (probability * truth).sum(1), ((1 - probability) * truth).sum(1)
    wrong = _MISSED * missed + _FALSE * (probability * (1 - truth)).sum(1)
    # One minus the Tversky index, without the difference of two numbers that are nearly equal.
    return (wrong / (overlap + wrong + _SMOOTH)).clamp(min=_LEAST) ** _FOCUS

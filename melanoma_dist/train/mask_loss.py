"""The loss of a segmenter: binary cross-entropy of the pixels, and Dice of each image.

Shapes: b images, S pixels a side. Masks are 0 to 1, or NaN where the mask is unknown.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

_SMOOTH = 1.0  # pixels: an image without lesion has a gradient, and no division by zero


class MaskLoss(nn.Module):
    """The sum over images with a known mask; the caller divides by their number in the global batch.

    An image counts by itself, never the batch as a whole: the loss does not depend on how images are grouped into
    ranks and micro-batches.
    """

    def __init__(self, dice_weight: float) -> None:
        """``dice_weight``: of the Dice loss, 0 to 1; the rest is that of the cross-entropy."""
        super().__init__()
        self._dice_weight = dice_weight

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
        return torch.where(unknown.any(1), 0.0, loss)

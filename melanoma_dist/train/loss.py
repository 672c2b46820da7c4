"""The loss: binary cross-entropy per known label, weighted against imbalance.

Shapes: b samples, L labels. Targets are 1, 0 or NaN (unknown).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional as F

from melanoma_dist.config.run import LossConfig

_FOCAL_FLOOR = 1e-6
_NEARLY = 1e-7  # the distance of a probability from 0 and 1, below which float32 does not resolve logits


class MaskedLoss(nn.Module):
    """The sum over known labels of the weighted loss; the caller divides by the known labels of the global batch."""

    weights: torch.Tensor

    def __init__(self, config: LossConfig, targets: npt.NDArray[np.float32]) -> None:
        """``targets`` [n, L] of the training images give the balanced weights."""
        super().__init__()
        self._gamma = config.focal_gamma if config.loss == "focal" else 0.0
        balanced = config.class_weights == "balanced"
        weights = balanced_weights(targets) if balanced else np.ones((2, targets.shape[1]), dtype=np.float32)
        self.register_buffer("weights", torch.from_numpy(weights))

    def forward(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Logits and targets [b, L] -> a scalar sum."""
        known = ~targets.isnan()
        truth = torch.where(known, targets, 0.0)
        loss = F.binary_cross_entropy_with_logits(logits.float(), truth, reduction="none")
        if self._gamma:
            # Focal loss (Lin et al. 2017, eq. 4): the probability of the truth is exp(-cross-entropy).
            # Its slope at 0 is infinite for an exponent below 1, so the base is kept off 0.
            loss = (1 - torch.exp(-loss)).clamp(min=_FOCAL_FLOOR).pow(self._gamma) * loss
        weight = torch.where(truth > 0.5, self.weights[1], self.weights[0])
        return (loss * weight * known).sum()

    def of_probabilities(self, probability: npt.NDArray[np.float32], targets: npt.NDArray[np.float32]) -> float:
        """Compute the mean over the known labels, from probabilities [n, L]: 1 and 0 count as nearly so."""
        logits = torch.logit(torch.tensor(probability), eps=_NEARLY)
        return float(self(logits, torch.tensor(targets))) / max(1, int((~np.isnan(targets)).sum()))


def balanced_weights(targets: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Compute weights [2, L] of negatives and positives: known / (2 * count), scikit-learn's "balanced" per label.

    A label without positives or without negatives has weights of 1.
    """
    positives = (targets == 1).sum(0)
    negatives = (targets == 0).sum(0)
    counts = np.stack([negatives, positives]).astype(np.float64)
    weights = (positives + negatives) / (2 * np.maximum(counts, 1))
    return np.where((counts == 0).any(0), 1.0, weights).astype(np.float32)

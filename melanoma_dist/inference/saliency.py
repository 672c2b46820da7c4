"""Where in an image a model found evidence for or against a label: Grad-CAM, on the features that the classifier pools.

Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via gradient-based localization". Libraries
attach it to a module of a convolutional network, by name; here the last features are what ``Classifier.positions``
gives, the same for convolutions and for tokens.

It shows what the answer rests on, not whether the reason is a medical one.

Shapes: B images, S pixels a side, N positions in a grid of h rows and w columns, C channels.
"""

from __future__ import annotations

import torch

from melanoma_dist.models.classifier import Classifier

NO_FEATURE_MAP = "the backbone's last features form no map"
ONE_POSITION = "the backbone's last map has one position"


def grad_cam(
    model: Classifier,
    images: torch.Tensor,
    label: int,
    against: torch.Tensor | None = None,
    metadata: torch.Tensor | None = None,
) -> tuple[torch.Tensor | None, str]:
    """Evidence [B, h, w] of 0 to 1 for the label in that column, for images [B, 3, S, S]; or None, and why.

    ``metadata`` are codes [B, F], all unknown if None.

    The channels are weighed by the mean gradient of the label's logit, summed, and what speaks against the label is
    left out; each image's largest value is 1, or all are 0 where nothing speaks for it. Where ``against``, bool [B], is
    true it is evidence against the label, by the negated gradient. The model is left in ``eval`` mode.
    """
    model.eval()
    with torch.enable_grad():
        positions, grid = model.feature_map(images)
        if grid is None:
            return None, NO_FEATURE_MAP
        if grid == (1, 1):
            return None, ONE_POSITION
        positions = positions.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(model.classify(positions, metadata)[:, label].sum(), positions)
    evidence = (gradient.mean(1, keepdim=True) * positions.detach()).sum(2)
    if against is not None:
        evidence = torch.where(against[:, None], -evidence, evidence)
    evidence = evidence.relu()
    evidence = evidence / evidence.amax(1, keepdim=True).clamp(min=torch.finfo(evidence.dtype).tiny)
    return evidence.reshape(len(images), *grid), ""

from __future__ import annotations

import pytest
import segmentation_models_pytorch as smp
import torch
from torch.nn import functional as F

from melanoma_dist.train.mask_loss import MaskLoss


def batch(side: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 1, side, side, generator=generator)
    return logits, (torch.rand(3, 1, side, side, generator=generator) > 0.7).float()


def test_dice_is_that_of_segmentation_models_pytorch() -> None:
    logits, masks = batch(512)  # pixels enough that one for smoothing does not show
    reference = smp.losses.DiceLoss("binary")
    expected = torch.stack([reference(logits[i : i + 1], masks[i : i + 1]) for i in range(3)])
    assert torch.allclose(MaskLoss(1.0).of_images(logits, masks), expected, atol=1e-5)


def test_cross_entropy_is_that_of_pytorch() -> None:
    logits, masks = batch()
    expected = F.binary_cross_entropy_with_logits(logits, masks)
    assert float(MaskLoss(0.0)(logits, masks)) == pytest.approx(3 * float(expected), rel=1e-6)


@pytest.mark.parametrize("threshold", [0.7, 0.99])
def test_focal_tversky_is_that_of_segmentation_models_pytorch(threshold: float) -> None:
    logits, _ = batch(512)
    masks = (torch.rand(logits.shape, generator=torch.Generator().manual_seed(1)) > threshold).float()
    reference = smp.losses.TverskyLoss("binary", alpha=0.3, beta=0.7, gamma=0.75)  # alpha there weighs false lesion
    expected = torch.stack([reference(logits[i : i + 1], masks[i : i + 1]) for i in range(3)])
    actual = MaskLoss(0.5, tversky_weight=1.0).of_images(logits, masks)
    assert torch.allclose(actual, expected, atol=1e-4)
    mixed = MaskLoss(0.5, tversky_weight=0.25).of_images(logits, masks)
    assert torch.allclose(mixed, 0.25 * actual + 0.75 * MaskLoss(0.5).of_images(logits, masks), atol=1e-6)


@pytest.mark.parametrize("logit", [-200.0, 0.0, 200.0])
def test_focal_tversky_has_a_finite_gradient_without_a_lesion_and_where_all_is_right(logit: float) -> None:
    for masks in (torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8), torch.full((1, 1, 8, 8), torch.nan)):
        logits = torch.full((1, 1, 8, 8), logit, requires_grad=True)
        MaskLoss(0.5, tversky_weight=0.5)(logits, masks).backward()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()


def test_an_unknown_mask_has_no_weight_and_no_gradient() -> None:
    logits, masks = batch()
    masks[1] = torch.nan
    logits.requires_grad_(True)
    loss = MaskLoss(0.5)(logits, masks)
    loss.backward()
    assert logits.grad is not None
    assert logits.grad[1].eq(0).all()
    assert logits.grad[0].ne(0).any()
    with torch.no_grad():
        rest = MaskLoss(0.5)(logits[[0, 2]], masks[[0, 2]])
    assert float(loss.detach()) == pytest.approx(float(rest), rel=1e-6)


def test_it_does_not_depend_on_how_images_are_grouped() -> None:
    logits, masks = batch()
    loss = MaskLoss(0.5)
    parts = sum(float(loss(logits[i : i + 1], masks[i : i + 1])) for i in range(3))
    assert float(loss(logits, masks)) == pytest.approx(parts, rel=1e-6)


def test_an_image_without_lesion_has_a_finite_loss() -> None:
    logits = torch.full((1, 1, 8, 8), -20.0)
    assert float(MaskLoss(0.5)(logits, torch.zeros(1, 1, 8, 8))) == pytest.approx(0.0, abs=1e-6)

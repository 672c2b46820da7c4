"""A fourth channel, the lesion's mask, in the first layer of a backbone.

Its weights start at zero. So a pretrained backbone starts with the features of the image alone, and training decides
how much the mask counts. timm's own rule for four channels repeats the weights of red and scales all by 3/4: features
that no pretraining has seen.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from melanoma_dist.errors import ConfigError
from melanoma_dist.models.backbones import UNFIT, create_trunk, timm_name
from melanoma_dist.models.weights import first_line

_TOLERANCE = 1e-3  # of the features, relative to the largest: sums over more terms round otherwise


def with_mask_channel(trunk: nn.Module, backbone: str, image_size: int) -> nn.Module:
    """Return the trunk with a fourth channel that changes none of its features yet.

    Raises ConfigError for a backbone that is no network of channels, or whose first layer rescales its weights.
    """
    try:
        wide, _ = create_trunk(timm_name(backbone), image_size, in_chans=4)
    except (*UNFIT, TypeError) as error:
        raise _unfit(backbone, first_line(error)) from error
    expected = wide.state_dict()
    tensors = {key: _extended(value, expected[key].shape) for key, value in trunk.state_dict().items()}
    wrong = [key for key, value in tensors.items() if value.shape != expected[key].shape]
    if wrong:
        raise _unfit(backbone, f"{wrong[0]} has no dimension of colours")
    wide.load_state_dict(tensors)
    if not _same_features(trunk, wide, image_size):
        raise _unfit(backbone, "its first layer rescales its weights, so none can start at zero")
    return wide


def _extended(value: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Add zeros for the fourth channel, [out, 3, ...] -> [out, 4, ...], where ``shape`` has it."""
    if value.ndim < 2 or (*value.shape[:1], value.shape[1] + 1, *value.shape[2:]) != tuple(shape):
        return value
    return torch.cat([value, torch.zeros_like(value[:, :1])], dim=1)


def _same_features(trunk: nn.Module, wide: nn.Module, image_size: int) -> bool:
    pixels = torch.randn(1, 4, image_size, image_size, generator=torch.Generator().manual_seed(0))
    modes = trunk.training, wide.training
    with torch.no_grad():
        before = cast(Any, trunk.eval()).forward_features(pixels[:, :3])
        after = cast(Any, wide.eval()).forward_features(pixels)
    trunk.train(modes[0])
    wide.train(modes[1])
    return bool((before - after).abs().max() <= _TOLERANCE * before.abs().max())


def _unfit(backbone: str, reason: str) -> ConfigError:
    remedy = "Choose another backbone, or --mask none."
    return ConfigError.of("mask", "channel", f"the backbone {backbone} cannot take a fourth channel ({reason})", remedy)

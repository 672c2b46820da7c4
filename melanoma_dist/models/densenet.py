"""DenseNet with one concatenation for each layer, which the next one extends.

timm hands each layer the list of all features before it. The gradient of each of them is then a sum over all later
layers, one addition for each pair: 1,800 kernels in a step of densenet201. Here a layer's input is the one before it,
extended. The same values are added in the same order, a hundred times, each time of all channels together.
"""

from __future__ import annotations

from typing import cast

import torch
from timm.models.densenet import DenseBlock, DenseLayer
from torch import nn
from torch.nn import functional as F


class ExtendingBlock(DenseBlock):  # type: ignore[misc]
    """timm's block of layers, with the same weights and results."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, C + layers * growth, H, W]."""
        for layer in self.values():
            features = torch.cat([features, _new_features(cast(DenseLayer, layer), features)], 1)
        return features


def extend_concatenations(trunk: nn.Module) -> None:
    """Give timm's blocks in ``trunk``, where there are any, this way to compute."""
    for module in trunk.modules():
        if type(module) is DenseBlock:
            module.__class__ = ExtendingBlock


def _new_features(layer: DenseLayer, features: torch.Tensor) -> torch.Tensor:
    """What timm's layer computes of the concatenated features before it."""
    result = layer.conv2(layer.norm2(layer.conv1(layer.norm1(features))))
    return F.dropout(result, layer.drop_rate, layer.training) if layer.drop_rate > 0 else cast(torch.Tensor, result)

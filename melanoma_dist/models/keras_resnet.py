"""ResNet V2 as Keras publishes it: another function than timm's models of the same depth, with the same tensors.

He et al. 2016, "Identity Mappings in Deep Residual Networks", as in `keras/src/applications/resnet.py` and TF-slim:

- the stride of a stack is in the 3x3 convolution of its last block (stacks 1 to 3; timm: the first block of 2 to 4),
- the shortcut of that block takes every second pixel of the block's raw input,
- the first, the last and the shortcut convolutions have biases,
- batch norms have epsilon 1.001e-5 and momentum 0.99, which PyTorch calls 0.01,
- pixels are -1 to 1, 299 a side: TF-slim trained the weights so. Keras's default of 224 works too.

timm's registry has these models once this module is imported. Random weights are drawn as timm draws them.
"""

from __future__ import annotations

from functools import partial
from typing import Any, cast

import torch
from timm.layers import BatchNormAct2d, create_conv2d
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.resnetv2 import PreActBottleneck, ResNetV2
from torch import nn

from melanoma_dist.config.weights import KERAS_BACKBONES

TAG = "keras_in1k"
_FILES = "https://storage.googleapis.com/tensorflow/keras-applications/resnet"
default_cfgs = generate_default_cfgs(
    {
        f"{name}.{TAG}": {
            "url": f"{_FILES}/{name}_weights_tf_dim_ordering_tf_kernels_notop.h5", "custom_load": True,
            "num_classes": 1000, "input_size": (3, 299, 299), "pool_size": (10, 10), "crop_pct": 0.875,
            "interpolation": "bilinear", "mean": (0.5,) * 3, "std": (0.5,) * 3,
            "first_conv": "stem.conv", "classifier": "head.fc", "license": "apache-2.0",
        }
        for name in KERAS_BACKBONES
    }
)  # fmt: skip


class _StridedBottleneck(PreActBottleneck):  # type: ignore[misc]
    """The last block of a stack."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, C, ceil(H / 2), ceil(W / 2)]."""
        residual = self.conv3(self.norm3(self.conv2(self.norm2(self.conv1(self.norm1(x))))))
        return cast(torch.Tensor, self.drop_path(residual) + x[:, :, ::2, ::2])


class KerasResNetV2(ResNetV2):  # type: ignore[misc]
    """timm's model with Keras's strides, shortcuts and biases."""

    def __init__(self, layers: list[int], **arguments: Any) -> None:
        super().__init__(layers, **arguments)
        for stage in self.stages:
            stage.blocks[0].conv2.stride = stage.blocks[0].downsample.conv.stride = (1, 1)
        for stage in self.stages[:-1]:
            stage.blocks[-1].conv2.stride = (2, 2)
            stage.blocks[-1].__class__ = _StridedBottleneck  # keeps the block's tensors, names and drop path
        blocks = [block for stage in self.stages for block in stage.blocks]
        shortcuts = [block.downsample.conv for block in blocks if block.downsample is not None]
        for convolution in (self.stem.conv, *(block.conv3 for block in blocks), *shortcuts):
            convolution.bias = nn.Parameter(torch.zeros_like(convolution.weight[:, 0, 0, 0]))


def _create(name: str, layers: list[int], pretrained: bool, arguments: dict[str, Any]) -> nn.Module:
    norm = partial(BatchNormAct2d, eps=1.001e-5, momentum=0.01)
    fixed = {"layers": layers, "stem_type": "fixed", "conv_layer": create_conv2d, "norm_layer": norm}
    model = build_model_with_cfg(
        KerasResNetV2, name, pretrained, feature_cfg={"flatten_sequential": True}, **fixed, **arguments
    )
    return cast(nn.Module, model)


@register_model  # type: ignore[untyped-decorator]
def resnet50v2(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """Build ResNet50V2."""
    return _create("resnet50v2", [3, 4, 6, 3], pretrained, arguments)


@register_model  # type: ignore[untyped-decorator]
def resnet101v2(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """Build ResNet101V2."""
    return _create("resnet101v2", [3, 4, 23, 3], pretrained, arguments)


@register_model  # type: ignore[untyped-decorator]
def resnet152v2(pretrained: bool = False, **arguments: Any) -> nn.Module:
    """Build ResNet152V2."""
    return _create("resnet152v2", [3, 8, 36, 3], pretrained, arguments)

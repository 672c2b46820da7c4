"""The segmenter: a U-Net whose encoder is a backbone's trunk. The only module that knows segmentation_models_pytorch.

The loss and the prediction apply the sigmoid.

Shapes: B images, S pixels a side, a multiple of 32.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import timm
import torch
from torch import nn

from melanoma_dist.config.model import ModelConfig
from melanoma_dist.errors import ConfigError
from melanoma_dist.models.backbones import UNFIT, TrunkModel, build_trunk, leaves_of, timm_name, unfit_size
from melanoma_dist.models.weights import first_line

_WITHOUT_MAPS = (*UNFIT, AttributeError, KeyError, TypeError)
"""What timm and segmentation_models_pytorch raise for a backbone without feature maps of several sizes."""


class Segmenter(TrunkModel):
    """Images [B, 3, S, S] to logits [B, 1, S, S]: how likely each pixel is lesion."""

    def __init__(self, network: Any, freeze_norms: bool = False) -> None:
        """``network``: a model of segmentation_models_pytorch; see ``TrunkModel`` for ``freeze_norms``."""
        super().__init__(network.encoder, freeze_norms)
        self.decoder: nn.Module = network.decoder
        self.mask_head: nn.Module = network.segmentation_head

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, 3, S, S] -> [B, 1, S, S] logits."""
        return cast(torch.Tensor, self.mask_head(self.decoder(self.trunk(images))))


def build_segmenter(config: ModelConfig, image_size: int, seed: int, weights: str | None = None) -> Segmenter:
    """Build a segmenter whose random parts depend on ``seed`` alone. ``weights`` replaces the configured ones.

    The weights are those of a classifier's trunk, under timm's names. Raises ConfigError for an unknown encoder, one
    without feature maps, weights that do not fit, or an image size that the encoder cannot take.
    """
    import segmentation_models_pytorch as smp  # takes a second, and classifiers do not need it

    config = replace(config, weights=weights or config.weights)
    name = timm_name(config.backbone)
    trunk = None if config.weights == "none" else build_trunk(config, image_size)
    torch.manual_seed(seed)  # the decoder does not depend on how many numbers the trunk drew
    try:
        network = smp.Unet(f"tu-{name}", encoder_weights=None, **_size_of(name, image_size))
    except _WITHOUT_MAPS as error:
        raise _unfit(config.backbone, first_line(error)) from error
    if trunk is not None:
        _copy_weights(trunk, network.encoder.model, config.backbone)
    try:
        _freeze_unused(network, image_size)
    except _WITHOUT_MAPS as error:
        raise unfit_size(config.backbone, image_size, error) from error
    return Segmenter(network, config.freezes_trunk_norms())


def _copy_weights(trunk: nn.Module, encoder: nn.Module, backbone: str) -> None:
    """Copy a trunk's weights into the feature maps of the same backbone.

    timm wraps a trunk for its feature maps and then joins names of modules by ``_`` where they were nested.
    """
    own = {key.replace(".", "_"): value for key, value in trunk.state_dict().items()}
    expected = encoder.state_dict()
    tensors = {key: own.get(key.replace(".", "_").removeprefix("model_")) for key in expected}
    copied = {key: value for key, value in tensors.items() if value is not None and value.shape == expected[key].shape}
    if lacking := expected.keys() - copied.keys():
        names = ", ".join(sorted(lacking)[:3])
        raise _unfit(backbone, f"{len(lacking)} of its {len(expected)} tensors have other names there: {names}")
    encoder.load_state_dict(copied)


def _freeze_unused(network: nn.Module, image_size: int) -> None:
    """Stop the gradients of parameters that no mask depends on: DistributedDataParallel refuses them."""
    network.eval()
    used = leaves_of(network(torch.zeros(1, 3, image_size, image_size)))
    network.train()
    for parameter in network.parameters():
        parameter.requires_grad_(parameter in used)


def _size_of(name: str, image_size: int) -> dict[str, int]:
    """The argument for backbones whose position embeddings have a size."""
    published = timm.models.get_pretrained_cfg(name)
    return {"img_size": image_size} if published is not None and published.fixed_input_size else {}


def _unfit(backbone: str, reason: str) -> ConfigError:
    remedy = "Choose one with feature maps of several sizes, such as resnet34, densenet201 or efficientnet_b3."
    return ConfigError.of("encoder", backbone, f"a U-Net cannot use it ({reason})", remedy)

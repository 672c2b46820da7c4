"""Backbones by their names in the literature or in timm: input size, mean and std, published weights."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any, Self, cast

import timm
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from melanoma_dist.config.model import ModelConfig
from melanoma_dist.config.weights import KERAS_BACKBONES
from melanoma_dist.errors import ConfigError
from melanoma_dist.models.densenet import extend_concatenations
from melanoma_dist.models.names import name_in_timm, unknown_backbone, without_weights
from melanoma_dist.models.published import fetch_error, keras_file, require_reachable
from melanoma_dist.models.weights import first_line, load_weights

UNFIT = (RuntimeError, AssertionError, ValueError, IndexError)
"""What backbones raise for an input size that they cannot take, when they are built or when they see images."""
_FARTHER = 64  # pixels above the wanted size in which to look for one that fits
_FIXED_STEP = 8  # pixels between the sizes to try of a backbone that must be built again for each

# Its warnings of retries do not concern the user; a failure raises an error.
logging.getLogger("huggingface_hub").setLevel(logging.ERROR)


@dataclass(frozen=True)
class PublishedInput:
    """The input that a backbone was pretrained on: side in pixels, mean and std in shares of white."""

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


class TrunkModel(nn.Module):
    """A model that fine-tunes a backbone without its classifier, the trunk: its head first, then all of it."""

    def __init__(self, trunk: nn.Module, freeze_norms: bool = False) -> None:
        """The parameters of ``trunk`` that require no gradient stay as they are for good.

        ``freeze_norms`` keeps the running statistics of its batch norms, and normalizes training batches with them.
        """
        super().__init__()
        self._freeze_norms = freeze_norms
        self.trunk = trunk
        self._learnable = [parameter for parameter in trunk.parameters() if parameter.requires_grad]

    def head(self) -> list[nn.Module]:
        """The modules that do not come from the trunk."""
        return [module for name, module in self.named_children() if name != "trunk"]

    def train(self, mode: bool = True) -> Self:
        """Put the model into training or evaluation mode. Frozen batch norms stay in evaluation mode."""
        super().train(mode)
        if self._freeze_norms:
            for module in self.trunk.modules():
                if isinstance(module, _BatchNorm):  # of all dimensions, synchronized, and timm's with an activation
                    module.eval()
        return self

    def freeze_trunk(self, frozen: bool) -> None:
        """Freeze the trunk's weights, or release them. Its running statistics stay too only in ``eval`` mode."""
        for parameter in self._learnable:
            parameter.requires_grad_(not frozen)


def timm_name(backbone: str) -> str:
    """Return timm's name of a backbone. Raises ConfigError, with similar names, for an unknown one."""
    architecture, tag = name_in_timm(backbone)
    name = f"{architecture}.{tag}" if tag else architecture
    if not timm.is_model(architecture):
        raise unknown_backbone(backbone, timm.list_models())
    if tag and name not in timm.list_models(f"{architecture}.*", pretrained=True):
        tags = ", ".join(timm.list_models(f"{architecture}.*", pretrained=True))
        raise ConfigError.of(
            "backbone", backbone, f"{architecture} has no weights tagged {tag!r}", f"Type one of: {tags}."
        )
    return name


def published_input(backbone: str) -> PublishedInput:
    """Return input size, mean and std of a backbone from its published configuration; else those of ImageNet."""
    model = timm.models.get_pretrained_cfg(timm_name(backbone))
    if model is None:
        return PublishedInput(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    return PublishedInput(model.input_size[-1], model.mean, model.std)


def build_trunk(config: ModelConfig, image_size: int) -> nn.Module:
    """Build the backbone without its classifier, from the configured weights: ``imagenet``, ``none`` or a file.

    Raises ConfigError for weights that are not published, cannot be fetched or do not fit, and for an image size that
    the backbone cannot be built for.
    """
    name = timm_name(config.backbone)
    if config.weights == "imagenet":
        return _pretrained(config.backbone, name, image_size)
    try:
        trunk = _create(name, image_size)
    except UNFIT as error:
        raise unfit_size(config.backbone, image_size, error) from error
    if file := config.weights_file():
        load_weights(trunk, file, config.backbone)
    return trunk


def features_of(trunk: nn.Module, image_size: int, channels: int = 3) -> torch.Tensor:
    """Run a trunk once on a black image. Raises one of `UNFIT` if it cannot take the size."""
    training = trunk.training
    trunk.eval()
    features = cast(Any, trunk).forward_features(torch.zeros(1, channels, image_size, image_size))
    trunk.train(training)
    return cast(torch.Tensor, features)


def leaves_of(output: torch.Tensor) -> set[torch.Tensor]:
    """Collect the parameters that a tensor was computed from."""
    visited: set[Any] = set()
    leaves: set[torch.Tensor] = set()
    queue: list[Any] = [output.grad_fn]
    while queue:
        node = queue.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        if hasattr(node, "variable"):
            leaves.add(node.variable)
        queue += [previous for previous, _ in node.next_functions]
    return leaves


def unfit_size(backbone: str, image_size: int, error: Exception) -> ConfigError:
    """The error of a backbone that cannot take an image size, with the next larger size that it can."""
    larger = _larger_size(backbone, image_size)
    own = published_input(backbone).size
    remedy = f"The smallest larger size that it can take is --image-size {larger}. Its own is {own}."
    return ConfigError.of(
        "image_size", image_size, f"the backbone {backbone} cannot take it ({first_line(error)})",
        remedy if larger else f"Type its own: --image-size {own}.",
    )  # fmt: skip


def _larger_size(backbone: str, image_size: int) -> int | None:
    """The next larger size that a backbone can take, None if there is none near."""
    name = timm_name(backbone)
    published = timm.models.get_pretrained_cfg(name)
    fixed = published is not None and published.fixed_input_size
    trunk: nn.Module | None = None
    for size in range(image_size + 1, image_size + _FARTHER + 1):
        if fixed and size % _FIXED_STEP:
            continue
        try:
            trunk = _create(name, size) if trunk is None or fixed else trunk
            with torch.inference_mode():
                features_of(trunk, size)
        except UNFIT:
            continue
        return size
    return None


def _create(name: str, image_size: int, **pretrained: Any) -> nn.Module:
    return create_trunk(name, image_size, **pretrained)[0]


def create_trunk(name: str, image_size: int, **pretrained: Any) -> tuple[nn.Module, dict[str, Any]]:
    """Let timm build a backbone without its classifier. Returns the arguments that build it again, too."""
    options: dict[str, Any] = {"num_classes": 0, "global_pool": ""}
    published = timm.models.get_pretrained_cfg(name)
    if published is not None and published.fixed_input_size and published.input_size[-1] != image_size:
        options["img_size"] = image_size  # position embeddings are resampled
    try:
        trunk = timm.create_model(name, **options, **pretrained)
    except (TypeError, AssertionError):
        # Some transformers require their own pooling. `forward_features` never reaches it.
        del options["global_pool"]
        trunk = timm.create_model(name, **options, **pretrained)
    extend_concatenations(trunk)
    return cast(nn.Module, trunk), options


def check_backbone(backbone: str, weights: str) -> None:
    """Raise ConfigError for a backbone that timm does not know, or publishes without ImageNet weights."""
    name = timm_name(backbone)
    if weights != "imagenet":
        return
    published = timm.models.get_pretrained_cfg(name)
    if published is None or not published.has_weights:
        trained = {model.partition(".")[0] for model in timm.list_models(pretrained=True)}
        raise without_weights(backbone, name, sorted(trained))


def _pretrained(backbone: str, name: str, image_size: int) -> nn.Module:
    check_backbone(backbone, "imagenet")
    try:
        if name.partition(".")[0] in KERAS_BACKBONES:
            trunk = _create(name, image_size)
            load_weights(trunk, keras_file(trunk, name.partition(".")[0]), backbone)
            return trunk
        require_reachable(backbone, name)
        return _create(name, image_size, pretrained=True)
    except (AssertionError, IndexError) as error:
        raise unfit_size(backbone, image_size, error) from error
    except ConfigError:
        raise
    except Exception as error:  # files that do not load, and whatever the HTTP client of Hugging Face raises
        raise fetch_error(backbone, name, first_line(error)) from error

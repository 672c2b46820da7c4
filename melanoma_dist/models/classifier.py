"""The classifier: trunk -> pooling -> (hidden layer) -> batch norm -> ReLU -> dropout -> linear -> logits.

The sigmoid is in the loss, and applied to what is predicted.

Shapes: B images, S pixels a side, N positions of the trunk's feature map, C its channels, L labels.
"""

from __future__ import annotations

import math
from typing import Any, cast

import torch
from torch import nn

from melanoma_dist.config.run import ModelConfig, Pooling
from melanoma_dist.errors import ConfigError
from melanoma_dist.models.backbones import TrunkModel, build_trunk

_GEM_POWER = 3.0
_GEM_FLOOR = 1e-6


class GeM(nn.Module):
    """Generalised mean over positions, with a learnt power (Radenovic et al. 2018, eq. 3)."""

    def __init__(self) -> None:
        super().__init__()
        self.power = nn.Parameter(torch.tensor(_GEM_POWER))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[B, N, C] -> [B, C]."""
        return features.float().clamp(min=_GEM_FLOOR).pow(self.power).mean(1).pow(1 / self.power)


class Classifier(TrunkModel):
    """Images [B, 3, S, S] to logits [B, L]."""

    def __init__(self, trunk: nn.Module, image_size: int, labels: int, config: ModelConfig) -> None:
        channels, channels_first = _feature_layout(trunk, image_size)
        super().__init__(trunk)
        self._channels_first = channels_first
        self.pooling = config.pooling
        self.gem = GeM() if config.pooling == "gem" else None
        width = config.hidden or channels
        self.hidden = nn.Linear(channels, config.hidden) if config.hidden else nn.Identity()
        self.norm = nn.BatchNorm1d(width) if config.head_norm == "batch" else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        self.linear = nn.Linear(width, labels)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, 3, S, S] -> [B, L] logits."""
        return self.answer(self.positions(images)[0])

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """[B, 3, S, S] -> [B, C], the pooled features of the trunk."""
        return self._pooled(self.positions(images)[0])

    def positions(self, images: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int] | None]:
        """[B, 3, S, S] -> the trunk's features [B, N, C], and the rows and columns that the N positions form.

        None where they form none: pooled features, and tokens whose number is no square.
        """
        features = cast(Any, self.trunk).forward_features(images)
        if features.ndim == 4:
            rows, columns = features.shape[2:] if self._channels_first else features.shape[1:3]
            return self._positions(features), (int(rows), int(columns))
        found = self._positions(features)
        side = math.isqrt(found.shape[1])
        return found, (side, side) if features.ndim == 3 and side**2 == found.shape[1] else None

    def answer(self, positions: torch.Tensor) -> torch.Tensor:
        """Features [B, N, C] -> [B, L] logits."""
        pooled = self.norm(self.hidden(self._pooled(positions)))
        return cast(torch.Tensor, self.linear(self.dropout(torch.relu(pooled))))

    def _pooled(self, positions: torch.Tensor) -> torch.Tensor:
        return self.gem(positions) if self.gem is not None else _pool(positions, self.pooling)

    def _positions(self, features: torch.Tensor) -> torch.Tensor:
        """A map [B, C, H, W] or [B, H, W, C], or tokens [B, N, C], as [B, N, C] without class tokens."""
        if features.ndim == 4:
            return features.flatten(2).transpose(1, 2) if self._channels_first else features.flatten(1, 2)
        if features.ndim == 3:
            return features[:, getattr(self.trunk, "num_prefix_tokens", 0) :]
        return features[:, None]


def build_classifier(
    config: ModelConfig, image_size: int, labels: int, seed: int, weights: str | None = None
) -> Classifier:
    """A classifier whose random parts depend on ``seed`` alone. ``weights`` replaces the configured ones.

    Raises ConfigError for an unknown backbone, weights that do not fit, or an image size the backbone cannot take.
    """
    torch.manual_seed(seed)
    trunk = build_trunk(config.backbone, weights or config.weights, image_size)
    torch.manual_seed(seed)  # the head is the same whatever the trunk drew
    return Classifier(trunk, image_size, labels, config)


def _pool(positions: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    if pooling == "avg":
        return positions.mean(1)
    if pooling == "max":
        return positions.amax(1)
    return 0.5 * (positions.mean(1) + positions.amax(1))


def _feature_layout(trunk: nn.Module, image_size: int) -> tuple[int, bool]:
    """Channels of the trunk's features, and whether they come before the positions; found by trying.

    Parameters that no feature depends on (of a layer behind the features) are set to learn nothing.
    """
    training = trunk.training
    trunk.eval()
    try:
        features = cast(Any, trunk).forward_features(torch.zeros(1, 3, image_size, image_size))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).splitlines()[0][:160]
        raise ConfigError.of("image_size", image_size, f"the backbone cannot take it ({reason})") from error
    trunk.train(training)
    used = _leaves(features)
    for parameter in trunk.parameters():
        parameter.requires_grad_(parameter in used)
    width = int(cast(Any, trunk).num_features)
    channels_first = features.ndim == 4 and not (features.shape[-1] == width and features.shape[1] != width)
    return int(features.shape[1] if channels_first else features.shape[-1]), channels_first


def _leaves(output: torch.Tensor) -> set[torch.Tensor]:
    """The parameters that a tensor was computed from."""
    seen: set[Any] = set()
    found: set[torch.Tensor] = set()
    waiting: list[Any] = [output.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.add(node.variable)
        waiting += [previous for previous, _ in node.next_functions]
    return found

"""The classifier: trunk -> pooling -> (hidden layer) -> batch norm -> ReLU -> dropout -> linear -> logits.

The loss and the prediction apply the sigmoid. A model with metadata (``models.metadata``) also takes age, sex and site,
each of which may be unknown.

Shapes: B images of 3 channels (written so below) or of 4 with a mask, S pixels a side, N positions of the trunk's
feature map, C its channels, L labels, F fields.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

import torch
from torch import nn

from melanoma_dist.config.metadata import field_names
from melanoma_dist.config.model import ModelConfig
from melanoma_dist.models.backbones import UNFIT, TrunkModel, build_trunk, features_of, leaves_of, unfit_size
from melanoma_dist.models.mask_channel import with_mask_channel
from melanoma_dist.models.metadata import Concatenation, Gate, MetadataBranch

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
    """Images [B, 3, S, S], and for a model with metadata their codes [B, F], to logits [B, L].

    Metadata that are None are unknown.
    """

    def __init__(
        self, trunk: nn.Module, image_size: int, labels: int, config: ModelConfig, input_channels: int = 3
    ) -> None:
        try:
            channels, channels_first = _feature_layout(trunk, image_size, input_channels)
        except UNFIT as error:
            raise unfit_size(config.backbone, image_size, error) from error
        super().__init__(trunk, config.freezes_trunk_norms())
        self.channels = channels
        self._channels_first = channels_first
        self.pooling = config.pooling
        self.gem = GeM() if config.pooling == "gem" else nn.Identity()
        width = config.hidden or channels
        self.hidden = nn.Linear(channels, config.hidden) if config.hidden else nn.Identity()
        self.norm = nn.BatchNorm1d(width) if config.head_norm == "batch" else nn.Identity()
        self.dropout = nn.Dropout(config.dropout)
        self.linear = nn.Linear(width, labels)
        nn.init.normal_(self.linear.weight, std=0.01)
        nn.init.zeros_(self.linear.bias)
        # Last, so that the head above starts as that of the image alone.
        self.metadata = MetadataBranch(fields) if (fields := field_names(config.metadata)) else None
        self.gate = Gate(channels) if fields and config.fusion == "metablock" else None
        self.beside = Concatenation(labels) if fields and config.fusion == "concat" else None

    def forward(self, images: torch.Tensor, metadata: torch.Tensor | None = None) -> torch.Tensor:
        """[B, 3, S, S] and [B, F] -> [B, L] logits."""
        return self.classify(self.feature_map(images)[0], metadata)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """[B, 3, S, S] -> [B, C], the pooled features of the trunk."""
        return self._pooled(self.feature_map(images)[0])

    def with_features(
        self, images: torch.Tensor, metadata: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """[B, 3, S, S] -> the logits [B, L] of ``forward`` and the pooled features [B, C], in one pass."""
        positions = self.feature_map(images)[0]
        return self.classify(positions, metadata), self._pooled(positions)

    def feature_map(self, images: torch.Tensor) -> tuple[torch.Tensor, tuple[int, int] | None]:
        """[B, 3, S, S] -> the trunk's features [B, N, C], and the rows and columns of the N positions.

        Rows and columns are None for pooled features, and for tokens whose number is not a square.
        """
        features = cast(Any, self.trunk).forward_features(images)
        if features.ndim == 4:
            rows, columns = features.shape[2:] if self._channels_first else features.shape[1:3]
            return self._positions(features), (int(rows), int(columns))
        tokens = self._positions(features)
        side = math.isqrt(tokens.shape[1])
        return tokens, (side, side) if features.ndim == 3 and side**2 == tokens.shape[1] else None

    def classify(self, positions: torch.Tensor, metadata: torch.Tensor | None = None) -> torch.Tensor:
        """Features [B, N, C], and metadata [B, F], -> [B, L] logits."""
        pooled, described = self._pooled(positions), self._described(positions.shape[0], metadata)
        if self.gate is not None:
            pooled = self.gate(pooled, described)
        normed = self.norm(self.hidden(pooled))
        logits = cast(torch.Tensor, self.linear(self.dropout(torch.relu(normed))))
        # A linear layer over concatenated features is a sum of two.
        return logits if self.beside is None else logits + self.beside(self.dropout(described))

    def _described(self, count: int, metadata: torch.Tensor | None) -> torch.Tensor | None:
        """Features [B, 64] of the metadata, None for a model without.

        ``count`` is a size, not a length: an export must be free to change it.
        """
        if self.metadata is None:
            return None
        if metadata is None:
            metadata = self.linear.weight.new_full((count, len(self.metadata.fields)), torch.nan)
        return cast(torch.Tensor, self.metadata(metadata))

    def _pooled(self, positions: torch.Tensor) -> torch.Tensor:
        """[B, N, C] -> [B, C]."""
        match self.pooling:
            case "avg":
                return positions.mean(1)
            case "max":
                return positions.amax(1)
            case "avgmax":
                return 0.5 * (positions.mean(1) + positions.amax(1))
            case "gem":
                return cast(torch.Tensor, self.gem(positions))

    def _positions(self, features: torch.Tensor) -> torch.Tensor:
        """A map [B, C, H, W] or [B, H, W, C], or tokens [B, N, C], as [B, N, C] without class tokens."""
        if features.ndim == 4:
            return features.flatten(2).transpose(1, 2) if self._channels_first else features.flatten(1, 2)
        if features.ndim == 3:
            return features[:, getattr(self.trunk, "num_prefix_tokens", 0) :]
        return features[:, None]


def build_classifier(
    config: ModelConfig, image_size: int, labels: int, seed: int, weights: str | None = None, channels: int = 3
) -> Classifier:
    """Build a classifier whose random parts depend on ``seed`` alone. ``weights`` replaces the configured ones.

    ``channels``: of its input, 4 with a mask. Raises ConfigError for an unknown backbone, weights that do not fit, an
    image size that the backbone cannot take, and a backbone that cannot take a mask.
    """
    torch.manual_seed(seed)
    trunk = build_trunk(replace(config, weights=weights or config.weights), image_size)
    if channels > 3:
        trunk = with_mask_channel(trunk, config.backbone, image_size)
    torch.manual_seed(seed)  # the head does not depend on how many numbers the trunk drew
    return Classifier(trunk, image_size, labels, config, channels)


def _feature_layout(trunk: nn.Module, image_size: int, input_channels: int) -> tuple[int, bool]:
    """Run the trunk once: return the channels of its features, and whether channels come before positions.

    Parameters that no feature depends on (of a layer behind the features) stop requiring gradients.
    """
    features = features_of(trunk, image_size, input_channels)
    used = leaves_of(features)
    for parameter in trunk.parameters():
        parameter.requires_grad_(parameter in used)
    width = int(cast(Any, trunk).num_features)
    channels_first = features.ndim == 4 and not (features.shape[-1] == width and features.shape[1] != width)
    return int(features.shape[1] if channels_first else features.shape[-1]), channels_first

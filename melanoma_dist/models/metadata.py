"""The branch of a classifier that takes metadata: age, sex and site, each of which may be unknown.

``concat`` puts 64 features of the metadata beside those of the image, before the last layer. ``metablock`` scales and
shifts the pooled features of the image, as in Pacheco & Krohling 2021, "An attention-based mechanism to combine images
and metadata in deep learning models applied to skin cancer classification". Theirs gates each channel of the feature
map alike at all positions, which is the same for the pooled features.

Both start as the model of the image alone: what joins the branch to the image begins at 0. In ``concat`` these are the
last layer's columns of the metadata. A branch whose own last layer begins at 0 in front of the ReLU would stay there:
a ReLU passes no gradient at 0.

Shapes: B images, F fields, C channels, L labels.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from melanoma_dist.data.tables import VOCABULARY

_VECTOR, WIDTH = 16, 64
_MIDDLE, _CENTURY = 50.0, 100.0  # years


class MetadataBranch(nn.Module):
    """Codes [B, F] of ``data.metadata``, NaN for unknown, to features [B, 64]."""

    unknown: nn.Parameter

    def __init__(self, fields: tuple[str, ...]) -> None:
        super().__init__()
        self.fields = fields
        self.vectors = nn.ModuleDict({field: _vectors(field) for field in fields})
        self.unknown = nn.Parameter(torch.zeros(_VECTOR))  # one for all fields: unknown means the same in each
        nn.init.normal_(self.unknown, std=0.1)
        self.layers = nn.Sequential(
            nn.Linear(_VECTOR * len(fields), WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU()
        )

    def forward(self, codes: torch.Tensor) -> torch.Tensor:
        """[B, F] -> [B, 64]."""
        return cast(torch.Tensor, self.layers(torch.cat([self._vector(*each) for each in self._columns(codes)], dim=1)))

    def _columns(self, codes: torch.Tensor) -> list[tuple[str, torch.Tensor]]:
        return [(field, codes[:, at : at + 1]) for at, field in enumerate(self.fields)]

    def _vector(self, field: str, code: torch.Tensor) -> torch.Tensor:
        """[B, 1] -> [B, 16]."""
        unknown = code.isnan()
        if field == "age":
            centred = (torch.where(unknown, _MIDDLE, code) - _MIDDLE) / _CENTURY
            features = torch.cat([centred, centred**2], dim=1)
        else:
            features = (code == torch.arange(len(VOCABULARY[field]), device=code.device)).to(code.dtype)
        return torch.where(unknown, self.unknown, self.vectors[field](features))


class Concatenation(nn.Module):
    """The last layer's columns of the metadata: features [B, 64] to their part of the logits [B, L]."""

    def __init__(self, labels: int) -> None:
        super().__init__()
        self.linear = _zeros(nn.Linear(WIDTH, labels, bias=False))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """[B, 64] -> [B, L]."""
        return cast(torch.Tensor, self.linear(features))


class Gate(nn.Module):
    """Scale the pooled features [B, C] of an image by 0 to 2, and shift them, as its metadata say."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.scale, self.shift = (_zeros(nn.Linear(WIDTH, channels)) for _ in range(2))

    def forward(self, pooled: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        """[B, C] and [B, 64] -> [B, C]."""
        return pooled * (1 + torch.tanh(self.scale(features))) + cast(torch.Tensor, self.shift(features))


def _vectors(field: str) -> nn.Linear:
    """Age and its square, or a word's column, to a vector."""
    return nn.Linear(2, _VECTOR) if field == "age" else nn.Linear(len(VOCABULARY[field]), _VECTOR, bias=False)


def _zeros(layer: nn.Linear) -> nn.Linear:
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)
    return layer

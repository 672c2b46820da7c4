"""The antialiased resize of the evaluation graph, in operators that every runtime has.

`melanoma_dist.input.pixels` resizes bytes with PyTorch's kernel, which works with 16-bit weights and rounds to bytes
after the rows and again after the columns. The resize operators of exporters compute in floating point instead: 10 % of
their pixels differ by one level. Here the same 16-bit weights form two matrices, so that the pixels are the same.

Shapes: B images of H rows and W columns, S pixels a side.
"""

from __future__ import annotations

import torch

_WEIGHT_BITS = 15  # the largest weight is below 2**15: a signed 16-bit number
_MOST_BITS = 22  # of the fraction of a weight
_WHITE = 255.0


def resize_bytes(images: torch.Tensor, side: int) -> torch.Tensor:
    """Resize [B, 3, H, W] of whole numbers 0 to 255 to [B, 3, S, S], bilinear and antialiased. Stays float32."""
    columns, scale = _weights(images.shape[3], side)
    narrow = _to_bytes(images @ columns.T, scale)
    rows, scale = _weights(images.shape[2], side)
    return _to_bytes(rows @ narrow, scale)


def _to_bytes(sums: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
    return (sums / scale + 0.5).floor().clamp(0.0, _WHITE)


def _weights(length: int, side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The whole-number weights [S, length] of each input pixel in each output pixel, and the number that stands for 1.

    A weight is a triangle around the output pixel's centre. Distances are counted in shares of a pixel so small that
    they are whole numbers, because float32 would round the centres of large images.
    """
    source, target = torch.arange(length)[None], torch.arange(side)[:, None]
    count = source[:, -1:] + 1  # `length`, also where the graph knows it at run time only
    reach = 2 * count.clamp(min=side)
    distance = ((2 * source + 1) * side - (2 * target + 1) * count).abs()
    triangle = (reach - distance).clamp(min=0).float()
    total = triangle.sum(1, keepdim=True)
    scale = _scale((triangle / total).max())
    return (triangle * scale / total + 0.5).floor(), scale


def _scale(largest: torch.Tensor) -> torch.Tensor:
    """The largest power of two with which all weights fit into 16 bits."""
    doubled = 2.0 ** torch.arange(1, _MOST_BITS + 1)
    bits = ((largest * doubled + 0.5).floor() < 2.0**_WEIGHT_BITS).sum()
    return torch.index_select(2.0 ** torch.arange(_MOST_BITS + 1), 0, bits[None])

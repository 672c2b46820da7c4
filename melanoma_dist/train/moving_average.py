"""The exponential moving average (EMA) of a model: timm's, in one operation over all tensors.

timm's own update walks two state dicts in every step and copies each integer buffer in a kernel of its own, which takes
longer than the optimizer. The weight of the average is a number that changes from step to step, and the multi-tensor
kernel takes it from the host: the update is therefore no part of a recorded step.
"""

from __future__ import annotations

from typing import cast

import torch
from timm.utils import ModelEmaV3
from torch import nn


class MovingAverage:
    """Follows a model. ``module`` is the averaged one, in evaluation mode."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        """``decay`` is reached gradually, as timm's warm-up does."""
        self._timm = ModelEmaV3(model, decay=decay, use_warmup=True)
        self.module = cast(nn.Module, self._timm.module)
        # The tensors stay where they are: loading a state copies into them.
        pairs = list(zip(self.module.state_dict().values(), model.state_dict().values(), strict=True))
        self._averages = [average for average, _ in pairs if average.is_floating_point()]
        self._latest = [latest for _, latest in pairs if latest.is_floating_point()]
        self._integers = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, number: int) -> None:
        """Move towards the model after step ``number`` of the training."""
        torch._foreach_lerp_(self._averages, self._latest, weight=1.0 - self._timm.get_decay(number))

    @torch.no_grad()
    def copy_integers(self) -> None:
        """Copy the integer buffers, which have no mean: before the state is read."""
        for average, latest in self._integers:
            average.copy_(latest)

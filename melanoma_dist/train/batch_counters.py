"""Counts the batches of batch norms on the host.

PyTorch adds one to ``num_batches_tracked`` of every norm in every forward pass: a kernel for each norm, 150 to 200 a
step. Nothing is computed from the counts while the momentum of a norm is a number, but state dicts hold them. So they
are hidden during the forward pass, and written before a state dict is read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import SyncBatchNorm, _BatchNorm


class BatchCounters:
    """The counters of a model in training."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._norms: list[_BatchNorm] = []
        self._passes = 0

    def begin(self) -> None:
        """Choose the norms that count. Call it whenever norms change to training mode or back."""
        self.write()
        self._norms = [module for module in self._model.modules() if _counts(module)]  # type: ignore[misc]

    @contextmanager
    def hidden(self) -> Iterator[None]:
        """Hide the counters from forward passes."""
        counters = [norm.num_batches_tracked for norm in self._norms]
        for norm in self._norms:
            norm.num_batches_tracked = None
        try:
            yield
        finally:
            for norm, counter in zip(self._norms, counters, strict=True):
                norm.num_batches_tracked = counter

    def count(self, passes: int) -> None:
        """Count forward passes of which the norms know nothing."""
        self._passes += passes

    def write(self) -> None:
        """Write the counts into the model."""
        if self._passes and self._norms:
            torch._foreach_add_([norm.num_batches_tracked for norm in self._norms], self._passes)  # type: ignore[misc]
        self._passes = 0

    def discard(self) -> None:
        """Forget passes that were not written: another state is loaded."""
        self._passes = 0


def _counts(module: nn.Module) -> bool:
    """Whether a pass adds one to the counter of a module, and computes nothing from it.

    Norms behind the features are never run; their weights require no gradient (``models.classifier``). A synchronized
    norm counts itself: it does not run without a counter.
    """
    return (
        isinstance(module, _BatchNorm)
        and not isinstance(module, SyncBatchNorm)
        and module.training
        and module.momentum is not None
        and module.num_batches_tracked is not None
        and (module.weight is None or module.weight.requires_grad)
    )

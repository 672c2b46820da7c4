"""Computes the gradients of a step: micro-batches, mixed precision, and the mean over ranks."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from melanoma_dist.config.run import RunConfig
from melanoma_dist.models.backbones import TrunkModel
from melanoma_dist.train.batch_counters import BatchCounters
from melanoma_dist.train.compile import compile_model
from melanoma_dist.train.fallbacks import max_micro_batches
from melanoma_dist.train.predict import autocast, uses_amp
from melanoma_dist.train.step_graph import Inputs
from melanoma_dist.world import World

# The main rank's buffers must not replace the others' before a forward pass. PyTorch is renaming the argument.
_SYNC = "forward_sync_buffers"
_NO_SYNC: dict[str, Any] = {
    _SYNC if _SYNC in signature(DistributedDataParallel).parameters else "broadcast_buffers": False
}


class Gradients:
    """The gradients of one rank's model. Call ``begin`` whenever other parameters learn, then ``compute``."""

    def __init__(
        self, model: TrunkModel, loss: nn.Module, config: RunConfig, world: World, note: Callable[[str], object]
    ) -> None:
        """``loss`` maps outputs and targets to a scalar sum over the known targets.

        With ``compile``, the first ``compute`` compiles the model, and ``note`` takes how long that took.
        """
        self._model, self._loss, self._config, self._world = model, loss, config, world
        self._amp = uses_amp(world, config.hardware)
        self._parallel: nn.Module = model
        self._warmed_up = False
        self._note, self._to_compile = note, config.hardware.compile
        if self._to_compile:
            compile_model(model)
        self.counters = BatchCounters(model)
        # Equally many on all ranks, though shares may differ by one image: SyncBatchNorm synchronizes in each of them.
        self.micro_batches = min(config.optimizer.accumulate, max_micro_batches(config, world.size))

    def begin(self) -> None:
        """Prepare to train the parameters that now require gradients."""
        self._warmed_up = False
        self._parallel = self._wrap()

    def warm_up(self, inputs: Inputs, targets: torch.Tensor, known: torch.Tensor) -> None:
        """Run a pass whose gradients are dropped, so that no step is DistributedDataParallel's first.

        DDP puts gradients into buckets, and after its first pass rebuilds them in the order in which gradients became
        ready. With three or more ranks, other buckets sum in another order: without this pass, the first step after
        a resume would differ in the last bits from the same step of a training that was never interrupted.
        """
        if self._warmed_up or self._world.size < 3:
            return
        self._warmed_up = True
        before = copy_buffers(self._model)
        self.compute(inputs, targets, known)
        self._model.zero_grad(set_to_none=True)
        set_buffers(self._model, before)

    def compute(self, inputs: Inputs, targets: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """Accumulate gradients, micro-batch by micro-batch. Returns this rank's part of the loss, float64.

        ``inputs`` are what the model takes, ``known`` is a scalar: the known labels of the global batch.
        """
        start = time.monotonic()
        loss = torch.zeros((), dtype=torch.float64, device=targets.device)
        parts = [tensor.tensor_split(self.micro_batches) for tensor in (*inputs, targets)]
        for position, (*some_inputs, some_targets) in enumerate(zip(*parts, strict=True), start=1):
            # Gradients are averaged over the ranks once.
            local = isinstance(self._parallel, DistributedDataParallel) and position < self.micro_batches
            with self._parallel.no_sync() if local else nullcontext():  # type: ignore[operator]
                with autocast(self._amp), self.counters.hidden():
                    logits = self._parallel(*some_inputs)
                part = self._loss(logits, some_targets) / known
                (part * self._world.size).backward()
            loss += part.detach()
        if self._to_compile:
            self._to_compile = False
            self._note(f"compiled the model in its first step, which took {time.monotonic() - start:.0f} s")
        return loss

    def _wrap(self) -> nn.Module:
        parallel: nn.Module = self._model
        if self._world.size > 1:
            gpus = None if self._world.gpu is None else [self._world.gpu]
            # Each rank has running statistics of its own until they are averaged before a validation. The constructor
            # broadcasts the main rank's buffers all the same, which would overwrite the other ranks' in the middle of
            # an epoch: they are put back.
            before = copy_buffers(self._model)
            parallel = DistributedDataParallel(self._model, device_ids=gpus, **_NO_SYNC)
            set_buffers(self._model, before)
        return parallel


def copy_buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    """Copy the buffers of a model to the CPU."""
    return {name: buffer.detach().cpu().clone() for name, buffer in model.named_buffers()}


def set_buffers(model: nn.Module, values: dict[str, torch.Tensor]) -> None:
    """Restore what ``copy_buffers`` returned."""
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(values[name])

"""Trains and predicts on one rank: model, loss, optimizer and moving average.

The loss of a step is a sum over the known labels of the global batch, divided by their number. It does not depend on
the number of ranks and micro-batches, for each computes its part of that sum. DistributedDataParallel averages the
gradients over the ranks, so each part is multiplied by their number.

Shapes: b images of a rank's share, S pixels a side, L labels, n images to predict.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import nullcontext
from inspect import signature
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import load_file
from timm.utils import ModelEmaV3
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from melanoma_dist.config.run import RunConfig
from melanoma_dist.input.loader import TrainingBatch
from melanoma_dist.input.stream import step_seed
from melanoma_dist.models.backbones import TrunkModel
from melanoma_dist.train.collective import average_buffers, broadcast_buffers
from melanoma_dist.train.fallbacks import max_micro_batches
from melanoma_dist.train.non_finite import NonFiniteGuard
from melanoma_dist.train.optimizer import build_optimizer, set_rates
from melanoma_dist.train.predict import (
    Batch,
    Batches,
    Outputs,
    Predictions,
    autocast,
    collect,
    predict,
    to_device,
    uses_amp,
)
from melanoma_dist.world import World

_CHECK_EVERY = 50  # steps: reading the count of skipped steps waits for the device
# The main rank's buffers must not replace the others' before a forward pass. PyTorch is renaming the argument.
_SYNC = "forward_sync_buffers"
_NO_SYNC: dict[str, Any] = {
    _SYNC if _SYNC in signature(DistributedDataParallel).parameters else "broadcast_buffers": False
}


class TrainStep:
    """A model in training on one rank. Call ``begin_epoch``, ``step`` for each batch, then ``end_epoch``."""

    def __init__(self, model: TrunkModel, loss: nn.Module, config: RunConfig, world: World) -> None:
        """``loss`` maps outputs and targets to a scalar sum over the known targets."""
        hardware = config.hardware
        on_gpu = world.gpu is not None
        if hardware.sync_batchnorm and on_gpu and world.size > 1:
            nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.model = to_device(model, world, hardware)
        broadcast_buffers(self.model, world)
        self.optimizer = build_optimizer(model, config.optimizer)
        self.loss = loss.to(world.device)
        decay = config.optimizer.ema_decay
        self.average = ModelEmaV3(model, decay=decay, use_warmup=True) if decay else None
        self._config, self._world = config, world
        self._amp = uses_amp(world, hardware)
        self._parallel: nn.Module  # from the first `begin_epoch` on
        self._frozen: bool | None = None
        self._warmed_up = False
        self._non_finite = NonFiniteGuard(model, self.optimizer, world.device)
        self._loss_sum = torch.zeros(
            (), dtype=torch.float64, device=world.device
        )  # on the device: no step waits for it
        self._norm_sum = torch.zeros_like(self._loss_sum)

    def begin_epoch(self, frozen: bool) -> None:
        """Prepare to train the whole model, or with ``frozen`` the head alone."""
        if frozen != self._frozen:
            self.model.freeze_trunk(frozen)
            self._frozen, self._warmed_up = frozen, False
            self._parallel = self._wrap()
        self.model.train()
        if frozen:
            self.model.trunk.eval()

    def step(self, batch: TrainingBatch, number: int, rate: float) -> None:
        """One optimizer step on this rank's share of a global batch; ``number`` counts over the whole training.

        A step whose gradient is not finite is skipped. Raises TrainingError, on every rank alike, after too many.
        """
        set_rates(self.optimizer, rate)
        self._warm_up(batch)
        torch.manual_seed(step_seed(self._config.seed, number, self._world.rank))
        self._non_finite.begin()
        loss = self._accumulate(batch)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self._config.optimizer.clip_norm)
        skipped = self._non_finite.take(norm, number)
        self._loss_sum += torch.where(skipped, 0.0, loss)
        self._norm_sum += torch.where(skipped, 0.0, norm)
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.model, step=number)
        if number % _CHECK_EVERY == 0:
            self.check_skipped()

    def running_loss(self) -> float:
        """This rank's part of the loss, summed over the steps of the epoch that were not skipped."""
        return float(self._loss_sum)

    def gradient_norm(self) -> float:
        """The norm of the gradient before clipping, summed like the loss; the same on every rank."""
        return float(self._norm_sum)

    def skipped(self) -> int:
        """How many steps of the epoch were skipped; the same on every rank."""
        return self._non_finite.count()

    def check_skipped(self, most: int | None = None) -> None:
        """Raise TrainingError, on every rank alike, if too many steps of the epoch were skipped, or over ``most``."""
        allowed = self._config.fault_tolerance.max_skipped_steps
        self._non_finite.require(allowed if most is None else min(allowed, most))

    def end_epoch(self) -> None:
        """Reset the sums and the count of skipped steps."""
        self._loss_sum.zero_()
        self._norm_sum.zero_()
        self._non_finite.reset()

    def sync_buffers(self) -> None:
        """Average the running statistics, which each rank computes from its own share, over all ranks."""
        average_buffers(self.model, self._world)
        if self.average is not None:
            average_buffers(self.average.module, self._world)

    def evaluation_model(self) -> nn.Module:
        """The model to validate and save: the moving average where there is one."""
        return self.model if self.average is None else cast(nn.Module, self.average.module)

    def load_weights(self, path: Path) -> None:
        """Load saved weights into the model to validate."""
        self.evaluation_model().load_state_dict(load_file(path))

    def predict(self, batches: Batches, count: int, tta: int = 1) -> Predictions:
        """Predict probabilities [n, L] of ``count`` samples on all ranks together; see ``predict.predict``."""
        return predict(self.evaluation_model(), batches, count, self._world, self._amp, tta)

    def collect(self, outputs: Outputs, batches: Iterable[Batch], count: int) -> Predictions:
        """Collect what ``outputs`` computes of ``count`` samples, on all ranks together; see ``predict.collect``."""
        return collect(outputs, batches, count, self._world, self._amp)

    def state_dict(self) -> dict[str, Any]:
        """Return the state that all ranks share, as tensors and plain values; ``rank_state`` has the rest."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.module.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.module.load_state_dict(state["average"])

    def rank_state(self) -> dict[str, Any]:
        """Return the state of this rank alone, on the CPU: its running statistics, its sums of the epoch."""
        return {
            "buffers": _buffers(self.model),
            "average": {} if self.average is None else _buffers(self.average.module),
            "loss_sum": float(self._loss_sum),
            "norm_sum": float(self._norm_sum),
            "skipping": self._non_finite.state_dict(),
        }

    def load_rank_state(self, state: dict[str, Any]) -> None:
        """Restore what ``rank_state`` returned, after ``load_state_dict``."""
        _set_buffers(self.model, state["buffers"])
        if self.average is not None:
            _set_buffers(self.average.module, state["average"])
        self._loss_sum.fill_(state["loss_sum"])
        self._norm_sum.fill_(state["norm_sum"])
        self._non_finite.load_state_dict(state["skipping"])

    def _warm_up(self, batch: TrainingBatch) -> None:
        """Run a pass whose gradients are dropped, so that no step is DistributedDataParallel's first.

        DDP puts gradients into buckets, and after its first pass rebuilds them in the order in which gradients became
        ready. With three or more ranks, other buckets sum in another order: without this pass, the first step after
        a resume would differ in the last bits from the same step of a training that was never interrupted.
        """
        if self._warmed_up or self._world.size < 3:
            return
        self._warmed_up = True
        before = self.rank_state()
        self._accumulate(batch)
        self.optimizer.zero_grad(set_to_none=True)
        self.load_rank_state(before)

    def _accumulate(self, batch: TrainingBatch) -> torch.Tensor:
        """Accumulate gradients, micro-batch by micro-batch. Returns this rank's part of the loss, float64."""
        loss = torch.zeros_like(self._loss_sum)
        # Equally many on all ranks, though shares may differ by one image: SyncBatchNorm synchronizes in each of them.
        micro = min(self._config.optimizer.accumulate, max_micro_batches(self._config, self._world.size))
        parts = list(zip(batch.images.tensor_split(micro), batch.targets.tensor_split(micro), strict=True))
        for position, (images, targets) in enumerate(parts):
            last = position == len(parts) - 1
            local = isinstance(self._parallel, DistributedDataParallel) and not last  # gradients are averaged once
            with self._parallel.no_sync() if local else nullcontext():  # type: ignore[operator]
                with autocast(self._amp):
                    logits = self._parallel(images)
                part = self.loss(logits, targets) / max(batch.known, 1)
                (part * self._world.size).backward()
            loss += part.detach()
        return loss

    def _wrap(self) -> nn.Module:
        parallel: nn.Module = self.model
        if self._world.size > 1:
            gpus = None if self._world.gpu is None else [self._world.gpu]
            # Each rank has running statistics of its own until `sync_buffers` averages them before a validation. The
            # constructor broadcasts the main rank's buffers all the same, which would overwrite the other ranks' in the
            # middle of an epoch: they are put back.
            before = self.rank_state()
            parallel = DistributedDataParallel(self.model, device_ids=gpus, **_NO_SYNC)
            self.load_rank_state(before)
        if self._config.hardware.compile:
            parallel.compile()
        return parallel


def _buffers(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: buffer.detach().cpu().clone() for name, buffer in model.named_buffers()}


def _set_buffers(model: nn.Module, values: dict[str, torch.Tensor]) -> None:
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(values[name])


def redistribute_state(states: list[dict[str, Any]], ranks: int) -> list[dict[str, Any]]:
    """Redistribute rank states to another number of ranks: statistics averaged, the loss summed on rank 0."""

    def mean(part: str) -> dict[str, torch.Tensor]:
        first = states[0][part]
        return {
            name: torch.stack([state[part][name] for state in states]).mean(0) if value.is_floating_point() else value
            for name, value in first.items()
        }

    same = {key: states[0][key] for key in ("norm_sum", "skipping")}
    shared = {"buffers": mean("buffers"), "average": mean("average"), **same}
    losses = [math.fsum(state["loss_sum"] for state in states)] + [0.0] * (ranks - 1)
    return [{**shared, "loss_sum": loss} for loss in losses]

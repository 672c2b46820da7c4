"""Trains and predicts on one rank: model, loss, optimizer and moving average.

The loss of a step is a sum over the known labels of the global batch, divided by their number. It does not depend on
the number of ranks and micro-batches, for each computes its part of that sum. DistributedDataParallel averages the
gradients over the ranks, so each part is multiplied by their number.

Shapes: b images of a rank's share, S pixels a side, L labels, n images to predict.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from melanoma_dist.config.run import RunConfig
from melanoma_dist.errors import ResumeError
from melanoma_dist.input.loader import TrainingBatch
from melanoma_dist.input.stream import step_seed
from melanoma_dist.models.backbones import TrunkModel
from melanoma_dist.models.classifier import Classifier
from melanoma_dist.train.collective import average_buffers, broadcast_buffers
from melanoma_dist.train.cuda_graph import graph_recorder
from melanoma_dist.train.device import set_seed
from melanoma_dist.train.gradients import Gradients, copy_buffers, set_buffers
from melanoma_dist.train.moving_average import MovingAverage
from melanoma_dist.train.non_finite import NonFiniteGuard
from melanoma_dist.train.optimizer import Rates, build_optimizer, optimizer_state
from melanoma_dist.train.predict import (
    Batch,
    Batches,
    Outputs,
    Predictions,
    collect,
    predict,
    to_device,
    uses_amp,
)
from melanoma_dist.train.step_graph import Inputs, Recorder, StepGraph
from melanoma_dist.world import World

_CHECK_EVERY = 50  # steps: reading the count of skipped steps waits for the device


class TrainStep:
    """A model in training on one rank. Call ``begin_epoch``, ``step`` for each batch, then ``end_epoch``."""

    def __init__(
        self,
        model: TrunkModel,
        loss: nn.Module,
        config: RunConfig,
        world: World,
        note: Callable[[str], object] = lambda text: None,
        recorder: Recorder | None = None,
    ) -> None:
        """``loss`` maps outputs and targets to a scalar sum over the known targets.

        On one GPU, steps are recorded as a CUDA graph, or by ``recorder``; ``note`` takes the reason if not.
        """
        hardware = config.hardware
        on_gpu = world.gpu is not None
        if hardware.sync_batchnorm and on_gpu and world.size > 1:
            nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.model = to_device(model, world, hardware)
        broadcast_buffers(self.model, world)
        self.optimizer = build_optimizer(model, config.optimizer)
        self.loss = loss.to(world.device)
        decay = config.optimizer.ema_decay
        self.average = MovingAverage(model, decay) if decay else None
        self._gradients = Gradients(model, self.loss, config, world, note)
        self._config, self._world = config, world
        self._amp = uses_amp(world, hardware)
        self._frozen: bool | None = None
        self._non_finite = NonFiniteGuard(model, self.optimizer, world.device)
        self._loss_sum = torch.zeros(
            (), dtype=torch.float64, device=world.device
        )  # on the device: no step waits for it
        self._norm_sum = torch.zeros_like(self._loss_sum)
        # What changes from step to step, where also a recorded step finds it.
        self._rates = Rates(self.optimizer, world.device)
        self._known = torch.ones((), device=world.device)
        self._number = torch.zeros((), dtype=torch.int64, device=world.device)
        self._graph: StepGraph | None = None
        if recorder := recorder or graph_recorder(config.hardware, world):
            self._graph = StepGraph(recorder, self._take, self._tensors, self.optimizer, note)

    def change(self, config: RunConfig) -> None:
        """Take the next steps with the rates, weight decay, clipping and dropout of ``config``. Moments stay."""
        before, self._config = self._config, config
        if (config.optimizer, config.model.dropout) == (before.optimizer, before.model.dropout):
            return
        self.model.freeze_trunk(False)  # groups hold all parameters that ever learn
        # New groups in the same optimizer: it has the moments, and others refer to it.
        self.optimizer.param_groups[:] = build_optimizer(self.model, config.optimizer).param_groups
        self.model.freeze_trunk(bool(self._frozen))
        self._rates = Rates(self.optimizer, self._world.device)
        if isinstance(self.model, Classifier):
            self.model.dropout.p = config.model.dropout
        self._drop_graph()

    def begin_epoch(self, frozen: bool) -> None:
        """Prepare to train the whole model, or with ``frozen`` the head alone."""
        if frozen != self._frozen:
            self.model.freeze_trunk(frozen)
            self._frozen = frozen
            self._gradients.begin()
            self._drop_graph()
        self.model.train()
        if frozen:
            self.model.trunk.eval()
        self._gradients.counters.begin()

    def step(self, batch: TrainingBatch, number: int, rate: float) -> None:
        """One optimizer step on this rank's share of a global batch; ``number`` counts over the whole training.

        A step whose gradient is not finite is skipped. Raises TrainingError, on every rank alike, after too many.
        """
        self._rates.set(rate)
        self._known.fill_(max(batch.known, 1))
        self._number.fill_(number)
        self._gradients.warm_up(batch.inputs, batch.targets, self._known)
        seed = partial(set_seed, step_seed(self._config.seed, number, self._world.rank), self._world.gpu)
        if self._graph is not None:
            self._graph.step(batch.inputs, batch.targets, seed)
        else:
            seed()
            self._take(batch.inputs, batch.targets)
        self._gradients.counters.count(self._gradients.micro_batches)
        if self.average is not None:
            self.average.update(number)
        if number % _CHECK_EVERY == 0:
            self.check_skipped()

    @property
    def peak_rate(self) -> float:
        """The rate of the trunk that the schedule multiplies."""
        return self._config.optimizer.lr

    @property
    def replays(self) -> bool:
        """Whether steps are replayed from a record."""
        return self._graph is not None and self._graph.replays

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
        self._write_counters()
        return self.model if self.average is None else self.average.module

    def load_weights(self, path: Path) -> None:
        """Load saved weights into the model to validate."""
        self.evaluation_model().load_state_dict(load_file(path))

    def predict(self, batches: Batches, count: int, tta: int = 1, outputs: Outputs | None = None) -> Predictions:
        """Predict probabilities [n, L] of ``count`` samples on all ranks together; see ``predict.predict``."""
        return predict(self.evaluation_model(), batches, count, self._world, self._amp, tta, outputs)

    def collect(self, outputs: Outputs, batches: Iterable[Batch], count: int) -> Predictions:
        """Collect what ``outputs`` computes of ``count`` samples, on all ranks together; see ``predict.collect``."""
        return collect(outputs, batches, count, self._world, self._amp)

    def state_dict(self) -> dict[str, Any]:
        """Return the state that all ranks share, as tensors and plain values; ``rank_state`` has the rest."""
        self._write_counters()
        return {
            "model": self.model.state_dict(),
            "optimizer": optimizer_state(self.optimizer),
            "average": None if self.average is None else self.average.module.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned. Raises ResumeError for other groups of parameters."""
        sizes, others = (
            [len(group["params"]) for group in groups]
            for groups in (self.optimizer.param_groups, state["optimizer"]["param_groups"])
        )
        if sizes != others:
            raise ResumeError(
                f"The checkpoint has {len(others)} groups of parameters where this version has {len(sizes)}. Finish "
                "the run with the version that started it, or delete the run's folder to train again."
            )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._rates.attach()
        self._drop_graph()
        if self.average is not None:
            self.average.module.load_state_dict(state["average"])

    def rank_state(self) -> dict[str, Any]:
        """Return the state of this rank alone, on the CPU: its running statistics, its sums of the epoch."""
        self._write_counters()
        return {
            "buffers": copy_buffers(self.model),
            "average": {} if self.average is None else copy_buffers(self.average.module),
            "loss_sum": float(self._loss_sum),
            "norm_sum": float(self._norm_sum),
            "skipping": self._non_finite.state_dict(),
        }

    def load_rank_state(self, state: dict[str, Any]) -> None:
        """Restore what ``rank_state`` returned, after ``load_state_dict``."""
        self._gradients.counters.discard()
        set_buffers(self.model, state["buffers"])
        if self.average is not None:
            set_buffers(self.average.module, state["average"])
        self._loss_sum.fill_(state["loss_sum"])
        self._norm_sum.fill_(state["norm_sum"])
        self._non_finite.load_state_dict(state["skipping"])

    def _take(self, inputs: Inputs, targets: torch.Tensor) -> None:
        """Compute a step on the device, without waiting for it. It may be recorded: nothing here is a number of the
        step, and no tensor that outlives it is replaced.
        """
        self._rates.apply()
        self._non_finite.begin()
        loss = self._gradients.compute(inputs, targets, self._known)
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self._config.optimizer.clip_norm)
        skipped = self._non_finite.take(norm, self._number)
        self._loss_sum += torch.where(skipped, 0.0, loss)
        self._norm_sum += torch.where(skipped, 0.0, norm)
        self.optimizer.zero_grad(set_to_none=True)

    def _tensors(self) -> dict[str, torch.Tensor]:
        """All tensors that ``_take`` changes, by name."""
        moments = self.optimizer.state_dict()["state"]
        return {
            **self.model.state_dict(),
            **{f"{name} {index}": value for index, each in moments.items() for name, value in each.items()},
            **self._non_finite.tensors(),
            "loss": self._loss_sum,
            "gradient_norm": self._norm_sum,
        }

    def _drop_graph(self) -> None:
        if self._graph is not None:
            self._graph.drop()

    def _write_counters(self) -> None:
        self._gradients.counters.write()
        if self.average is not None:
            self.average.copy_integers()


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

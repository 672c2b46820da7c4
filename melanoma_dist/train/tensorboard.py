"""The TensorBoard events of a unit: loss, rate and speed by step; whatever the task draws after an epoch."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec

from torch.utils.tensorboard import SummaryWriter

from melanoma_dist.artifacts.epochs import EpochRecord
from melanoma_dist.train import tensorboard_history
from melanoma_dist.train.clock import Speed
from melanoma_dist.train.device import GpuLoad
from melanoma_dist.train.unit import Unit

P = ParamSpec("P")
Draw = Callable[[SummaryWriter], object]


def _tolerant(
    method: Callable[Concatenate[TensorBoardLogger, P], None],
) -> Callable[Concatenate[TensorBoardLogger, P], None]:
    """Make a method draw nothing where the disk refuses it: curves are not worth a training."""

    @wraps(method)
    def call(self: TensorBoardLogger, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            method(self, *args, **kwargs)
        except OSError as error:
            self.pause(error)

    return call


class TensorBoardLogger:
    """Writes the events of one unit to its folder, on the main rank only. A refusing disk pauses it for an epoch."""

    def __init__(self, unit: Unit, warn: Callable[[str], object] = lambda text: None) -> None:
        """``warn`` takes a message when the disk refuses events."""
        self._folder, self._warn = unit.folder, warn
        self._writer: SummaryWriter | None = None

    @_tolerant
    def open(self, steps: int, validated: bool) -> None:
        """Start to write after ``steps`` steps, and drop what an earlier process wrote about later ones.

        ``validated``: the epoch that ends there has been validated.
        """
        tensorboard_history.rewrite(self._folder, steps, validated)
        self._writer = SummaryWriter(str(self._folder))

    @_tolerant
    def step(self, step: int, loss: float, rate: float, speed: Speed, load: GpuLoad | None = None) -> None:
        """Write the scalars of a training step; ``load`` of the main rank's GPU."""
        writer = self._writer
        if writer is None:
            return
        writer.add_scalar("train/loss_running", loss, step)
        writer.add_scalar("train/learning_rate", rate, step)
        writer.add_scalar("input/images_per_s", speed.images_per_s, step)
        writer.add_scalar("input/wait_share", speed.wait_share, step)
        for name, value in load._asdict().items() if load else ():
            if value is not None:
                writer.add_scalar(f"gpu/{name}", value, step)

    @_tolerant
    def epoch(self, step: int, record: EpochRecord, draw: Draw) -> None:
        """Write the scalars of a validated epoch, and what ``draw`` adds."""
        writer = self._writer = self._writer or SummaryWriter(str(self._folder))
        writer.add_scalar("train/loss", record.train_loss, step)
        writer.add_scalar("validation/loss", record.validation_loss, step)
        writer.add_scalar("train/gradient_norm", record.gradient_norm, step)
        writer.add_scalar("progress/epoch", record.epoch, step)
        writer.add_scalar("progress/seconds_per_epoch", record.seconds, step)
        writer.add_scalar("progress/images_per_s", record.images_per_s, step)
        writer.add_scalar("progress/wait_share", record.wait_share, step)
        draw(writer)
        writer.flush()

    @_tolerant
    def flush(self) -> None:
        """Bring all events to the disk, so that no checkpoint is ahead of them."""
        if self._writer is not None:
            self._writer.flush()

    @_tolerant
    def close(self) -> None:
        """Write the remaining events and close the file."""
        if self._writer is not None:
            self._writer.close()

    def pause(self, error: OSError) -> None:
        """Write nothing until the next epoch, because the disk refused an event."""
        self._warn(f"{self._folder}: TensorBoard's curves pause until the next epoch ({error.strerror or error}).")
        self._writer = None

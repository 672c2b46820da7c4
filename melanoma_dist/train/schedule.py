"""The learning rate and the length of a training, as pure functions of its progress. No PyTorch.

The rate of a parameter group in a step is ``lr * (the group's factor) * schedule_factor(...)``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from melanoma_dist.config.run import ScheduleConfig

_ONECYCLE_START, _ONECYCLE_END = 1 / 25, 1e-4  # shares of the peak (Smith & Topin 2019; PyTorch's defaults)
_ONECYCLE_RISE = 0.3  # share of the epochs (PyTorch's default)
_WARMUP_EPOCHS, _PATIENCE = 1.0, 6
_ANNEALED = ("onecycle", "cosine")  # schedules whose rate falls to almost zero at their end


def schedule_factor(config: ScheduleConfig, step: int, steps_per_epoch: int, reduction: float) -> float:
    """Return the share of the peak rate in ``step`` (counted from 0 over the whole training), 0 to 1.

    ``reduction`` is the product of the plateau rule's factors so far.
    """
    total = config.epochs * steps_per_epoch
    warmup = round(_warmup_epochs(config) * steps_per_epoch)
    if step < warmup and config.schedule != "onecycle":
        return (step + 1) / warmup
    match config.schedule:
        case "onecycle":
            return _onecycle(step, total, max(warmup, 1))
        case "cosine":
            return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
        case "plateau":
            return reduction
        case "constant":
            return 1.0


def _warmup_epochs(config: ScheduleConfig) -> float:
    if config.warmup_epochs is not None:
        return config.warmup_epochs
    return _ONECYCLE_RISE * config.epochs if config.schedule == "onecycle" else _WARMUP_EPOCHS


def _patience(config: ScheduleConfig) -> int:
    if config.patience is not None:
        return config.patience
    return config.epochs if config.schedule in _ANNEALED else _PATIENCE


def _onecycle(step: int, total: int, rise: int) -> float:
    if step < rise:
        return _cosine_between(_ONECYCLE_START, 1.0, step / rise)
    return _cosine_between(1.0, _ONECYCLE_START * _ONECYCLE_END, (step - rise) / max(1, total - 1 - rise))


def _cosine_between(start: float, end: float, share: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * min(share, 1.0)))


@dataclass(frozen=True)
class Progress:
    """The memory of early stopping and of the plateau rule. Each epoch's score makes a new Progress."""

    best: float = -math.inf
    """Highest score so far that counted as a gain."""
    best_epoch: int = -1
    epoch: int = -1
    """Last validated epoch, from 0; -1 before the first."""
    reduction: float = 1.0
    """Product of the plateau rule's factors so far."""
    waited: int = 0
    """Epochs without gain since the best one or the last reduction."""

    def after(self, epoch: int, score: float, config: ScheduleConfig) -> Progress:
        """Return the progress after the validation of ``epoch`` with its ``score``."""
        if score > self.best + config.min_gain:
            return replace(self, best=score, best_epoch=epoch, epoch=epoch, waited=0)
        waited = self.waited + 1
        if waited > config.plateau_patience and config.schedule == "plateau":
            return replace(self, epoch=epoch, reduction=self.reduction * config.plateau_factor, waited=0)
        return replace(self, epoch=epoch, waited=waited)

    def reason_to_stop(self, config: ScheduleConfig) -> str | None:
        """Return why no further epoch follows, or None."""
        if self.epoch + 1 >= config.epochs:
            return f"all {config.epochs} epochs done"
        idle = self.epoch - self.best_epoch
        if idle >= _patience(config):
            return f"no gain for {idle} epochs"
        return None

    def state_dict(self) -> dict[str, float]:
        """Return plain values, for a checkpoint."""
        return dict(self.__dict__)

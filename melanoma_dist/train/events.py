"""What a unit reports while it trains: plain values that any process can take."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from melanoma_dist.artifacts.epochs import EpochRecord


@dataclass(frozen=True)
class StepDone:
    """A step of an epoch. Reported about once a second."""

    fold: int
    epoch: int  # from 1
    epochs: int  # at most
    step: int  # of this epoch, from 1
    steps: int
    images_per_s: float  # of all ranks together, in this epoch so far
    wait_share: float  # of the time of this epoch so far, spent waiting for input, 0 to 1
    loss: float  # mean over the steps of this epoch so far, of the main rank's share


@dataclass(frozen=True)
class Validating:
    """The training of an epoch is done; its validation starts."""

    fold: int
    epoch: int  # from 1


@dataclass(frozen=True)
class EpochDone:
    """A validated epoch."""

    fold: int
    epoch: int  # from 1
    epochs: int  # at most
    train_loss: float
    validation_loss: float
    score_name: str  # what the task calls its score, such as AUC
    score: float  # the higher the better
    best_score: float
    best_epoch: int  # from 1
    images_per_s: float
    wait_share: float
    seconds: float  # training and validation

    @classmethod
    def of(cls, fold: int, epochs: int, record: EpochRecord) -> Self:
        """From the record of an epoch."""
        return cls(
            fold, record.epoch, epochs, record.train_loss, record.validation_loss, record.score_name, record.score,
            record.best_score, record.best_epoch, record.images_per_s, record.wait_share, record.seconds,
        )  # fmt: skip


@dataclass(frozen=True)
class Finishing:
    """A pass over images with the best weights, after the last epoch. Reported about once a second."""

    fold: int
    what: str  # is computed, in one or two words
    share: float  # that is done, 0 to 1


@dataclass(frozen=True)
class UnitDone:
    """A finished fold."""

    fold: int
    score_name: str
    best_score: float
    best_epoch: int  # from 1
    reason: str


@dataclass(frozen=True)
class Paused:
    """A unit saved its state and ended, as it was asked to."""

    fold: int
    where: str


@dataclass(frozen=True)
class Note:
    """A message to the user."""

    fold: int
    text: str


Event = StepDone | Validating | EpochDone | Finishing | UnitDone | Paused | Note
Report = Callable[[Event], str | None]
"""Takes an event. Answers an ``EpochDone`` with the reason to stop the unit there, or None."""

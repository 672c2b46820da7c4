"""What a unit reports while it trains: plain values that any process can take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from melanoma_dist.data.folds import HEADLINE


@dataclass(frozen=True)
class StepDone:
    """Some step of an epoch, about once a second."""

    fold: int
    epoch: int  # from 1
    epochs: int  # at most
    step: int  # of this epoch, from 1
    steps: int
    images_per_s: float  # all ranks of the unit together, since the epoch began
    wait_share: float  # of the time since the epoch began, spent waiting for input, 0 to 1
    loss: float  # mean over the steps of the epoch so far, of the main rank's share


@dataclass(frozen=True)
class Validating:
    """Training of an epoch is done; its validation begins."""

    fold: int
    epoch: int


@dataclass(frozen=True)
class EpochDone:
    """A validated epoch."""

    fold: int
    epoch: int  # from 1
    epochs: int
    train_loss: float
    auc: float  # of melanoma
    macro_auc: float | None
    best_auc: float
    best_epoch: int  # from 1
    images_per_s: float
    wait_share: float
    seconds: float  # training and validation

    @classmethod
    def of(cls, fold: int, epochs: int, record: dict[str, Any]) -> Self:
        """From an epoch's line in ``metrics.jsonl``."""
        found = record["validation"]
        same = ("epoch", "train_loss", "best_auc", "best_epoch", "images_per_s", "wait_share", "seconds")
        return cls(
            fold=fold,
            epochs=epochs,
            auc=found["labels"][HEADLINE]["auc"],
            macro_auc=found["macro"]["auc"],
            **{name: record[name] for name in same},
        )


@dataclass(frozen=True)
class UnitDone:
    """A finished fold."""

    fold: int
    best_auc: float
    best_epoch: int  # from 1
    reason: str


@dataclass(frozen=True)
class Paused:
    """A unit saved its state and was left, as it was asked to."""

    fold: int
    where: str


@dataclass(frozen=True)
class Note:
    """Something a person should know."""

    fold: int
    text: str


Event = StepDone | Validating | EpochDone | UnitDone | Paused | Note

from __future__ import annotations

from dataclasses import replace

import pytest

from melanoma_dist.artifacts.epochs import EpochRecord
from melanoma_dist.evaluate.under_training import under_trained

from ..samples import EPOCH


def fold(*losses: float) -> list[EpochRecord]:
    return [replace(EPOCH, epoch=number, validation_loss=loss) for number, loss in enumerate(losses, 1)]


def test_folds_whose_loss_falls_to_the_end_are_told_to_train_longer() -> None:
    assert under_trained([fold(0.5, 0.6, 0.4), fold(0.5, 0.4, 0.3)], 3) == (
        "the validation loss of every fold was still falling in its last epoch: a longer training, such as --epochs 6, "
        "may predict better.",
    )


@pytest.mark.parametrize(
    ("folds", "epochs"),
    [
        ([fold(0.5, 0.4, 0.3), fold(0.5, 0.3, 0.4)], 3),  # one has begun to fit its own images
        ([fold(0.5, 0.4, 0.3), fold(0.5, 0.4, 0.3)], 6),  # stopped early
        ([fold(0.5, 0.4), fold(0.5, 0.4, 0.3)], 3),
        ([fold(0.4, 0.4)], 2),
        ([fold(0.4)], 1),
    ],
)
def test_others_are_told_nothing(folds: list[list[EpochRecord]], epochs: int) -> None:
    assert under_trained(folds, epochs) == ()

"""The result of a validation, in which the training loop and all tasks agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Validation(NamedTuple):
    """What a validation measured, as plain values."""

    score: float
    """What early stopping, the plateau rule and the scheduler of a sweep watch. The higher the better."""
    loss: float
    """The loss of training, on the validation images."""
    metrics: Mapping[str, object]

"""What is known when members of a population are replaced by children."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from melanoma_dist.sweep.space import Values


@dataclass(frozen=True)
class Interval:
    """The epochs of a member between two exchanges."""

    configuration: int
    start: int
    """Epochs before it."""
    before: float
    """The score after those epochs, 0 if there are none."""
    after: float
    """The score at the end of the interval."""


@dataclass(frozen=True)
class Exchange:
    """What is known when members of a population are replaced."""

    epoch: int
    """Epochs that all members have trained."""
    scores: dict[int, float]
    """Of the members after that epoch, and of the children of this exchange: those of their parents."""
    history: Sequence[Interval]
    """All intervals so far, the earliest first."""
    draws: np.random.Generator
    values: list[Values]
    """Of all configurations so far, and of the children of this exchange, which are the last ones."""
    continuing: list[int] = field(default_factory=list)
    """The configurations that train the next interval: members that stay, and the children so far."""

"""Saves a unit while its storage lets it, and has patience where it does not: the training goes on meanwhile.

A refused save is told and tried again, after a wait that doubles. When the storage has refused too often or for too
long, the unit ends: what it would lose grows with every step, and the last checkpoint is intact.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import torch

from melanoma_dist.errors import StorageError
from melanoma_dist.storage.backoff import Backoff
from melanoma_dist.train.background import copy_to_cpu
from melanoma_dist.train.checkpoint import Checkpoints, Cursor, NotSaved, State
from melanoma_dist.train.predict import Predictions

Tensors = dict[str, torch.Tensor]
PREDICTIONS = "probability"  # their name in ``validation.safetensors``


@dataclass(frozen=True)
class Patience:
    """How long a storage may refuse."""

    failures: int = 20
    """In a row."""
    longest_s: float = 1800.0
    """Since the first of them."""
    backoff: Backoff = field(default_factory=lambda: Backoff(first_s=5.0, longest_s=120.0))


class Best(NamedTuple):
    """The best epoch so far, as ``Checkpoints.save_best`` takes it."""

    epoch: int
    model: Tensors
    validation: Tensors
    about: dict[str, str] | None = None

    @classmethod
    def of(cls, epoch: int, model: torch.nn.Module, predictions: Predictions, about: dict[str, str]) -> Self:
        """Copy the weights of a model that goes on learning, with its predictions for the validation images."""
        return cls(epoch, copy_to_cpu(model.state_dict()), {PREDICTIONS: torch.from_numpy(predictions)}, about)


class Saver:
    """Writes the checkpoints of one unit. Only the main rank has one."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        warn: Callable[[str], object],
        patience: Patience | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        """``warn`` is told of every refusal, and when the storage takes something again."""
        self._checkpoints, self._warn, self._patience = checkpoints, warn, patience or Patience()
        self._clock, self._sleep = clock, sleep
        self._failures, self._since, self._not_before = 0, 0.0, 0.0
        self._owed: Best | None = None

    def due(self) -> bool:
        """Whether a save was refused and it is time for the next attempt."""
        return self._failures > 0 and self._clock() >= self._not_before

    def save(
        self,
        cursor: Cursor,
        state: State,
        keep_best: int,
        best: Best | None = None,
        urgent: bool = False,
    ) -> bool:
        """Save the ``best`` epoch, if there is a new one, then the state; returns whether they are saved.

        A best epoch that is refused is kept in memory and saved before the next state. An ``urgent`` save does not wait
        for its time. Raises StorageError when patience is at its end.
        """
        if best is not None:
            self._owed = best

        def write() -> None:
            self._pay()  # first, for the state names it
            self._checkpoints.save(cursor, state, keep_best)

        return self.attempt(write, urgent)

    def attempt(self, write: Callable[[], object], urgent: bool = False) -> bool:
        """Do ``write`` if it is time; returns whether it was done. Raises StorageError when patience is at its end."""
        if self._failures and not urgent and not self.due():
            return False
        try:
            write()
        except (NotSaved, OSError) as error:
            self._refused(error)
            return False
        self._taken()
        return True

    def retry_until_done(self, write: Callable[[], object]) -> None:
        """Do ``write``, after what is owed, and wait as long as it takes. Raises StorageError as ``save`` does."""

        def all_of_it() -> None:
            self._pay()
            write()

        while not self.attempt(all_of_it):
            self._sleep(max(0.0, self._not_before - self._clock()))

    def _pay(self) -> None:
        if self._owed is not None:
            self._checkpoints.save_best(*self._owed)
            self._owed = None

    def _refused(self, error: Exception) -> None:
        now, patience = self._clock(), self._patience
        self._since = self._since if self._failures else now
        self._failures += 1
        if self._failures >= patience.failures or now - self._since >= patience.longest_s:
            raise StorageError(self._farewell(error, now - self._since)) from error
        wait = patience.backoff.wait_s(self._failures)
        self._not_before = now + wait
        self._warn(
            f"{error} The training goes on, and tries to save again in {wait:.0f} s "
            f"(failure {self._failures} of {patience.failures})."
        )

    def _farewell(self, error: Exception, seconds: float) -> str:
        last = self._checkpoints.last
        intact = f"The last checkpoint, {last}, is intact" if last else "There is no checkpoint yet"
        return (
            f"The storage has refused {self._failures} times in {seconds / 60:.0f} minutes, lastly with: {error} "
            f"{intact}. Make room or mend the storage, then give the same command again: it goes on from there."
        )

    def _taken(self) -> None:
        if self._failures:
            self._warn(f"The storage takes what is saved again, after {self._failures} refusals.")
        self._failures = 0

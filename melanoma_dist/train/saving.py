"""Saves the checkpoints of a unit, and retries where the storage refuses them. Training continues meanwhile.

A refused save is reported and retried, after a wait that doubles. When the storage has refused too often or for too
long, the unit ends: each further step would be lost too, and the last checkpoint is intact.
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

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Patience:
    """How often and for how long a storage may refuse."""

    failures: int = 20
    """In a row."""
    longest_s: float = 1800.0
    """Since the first of them."""
    backoff: Backoff = field(default_factory=lambda: Backoff(first_s=5.0, longest_s=120.0))


class Best(NamedTuple):
    """The best epoch so far, as ``Checkpoints.save_best`` takes it."""

    epoch: int
    model: Tensors
    about: dict[str, str] | None = None

    @classmethod
    def of(cls, epoch: int, model: torch.nn.Module, about: dict[str, str]) -> Self:
        """Copy the weights of a model in training."""
        return cls(epoch, copy_to_cpu(model.state_dict()), about)


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
        """``warn`` takes a message for every refusal, and when the storage accepts files again."""
        self._checkpoints, self._warn, self._patience = checkpoints, warn, patience or Patience()
        self._clock, self._sleep = clock, sleep
        self._failures, self._since, self._not_before = 0, 0.0, 0.0
        self._unsaved_best: Best | None = None

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
        """Save the ``best`` epoch, if there is a new one, then the state. Returns whether both are saved.

        A best epoch that is refused is kept in memory and saved before the next state. An ``urgent`` save does not
        wait for its time. Raises StorageError when patience is exhausted.
        """
        if best is not None:
            self._unsaved_best = best

        def write() -> None:
            self._save_best()  # first, because the state names it
            self._checkpoints.save(cursor, state, keep_best)

        return self.attempt(write, urgent)

    def attempt(self, write: Callable[[], object], urgent: bool = False) -> bool:
        """Run ``write`` if it is time, and return whether it ran. Raises StorageError when patience is exhausted."""
        if self._failures and not urgent and not self.due():
            return False
        try:
            write()
        except (NotSaved, OSError) as error:
            self._handle_refusal(error)
            return False
        if self._failures:
            self._warn(f"The storage accepts files again, after {self._failures} refusals.")
        self._failures = 0
        return True

    def retry_until_done(self, write: Callable[[], object]) -> None:
        """Save a refused best epoch, run ``write``, and retry as long as needed. Raises StorageError like ``save``."""

        def save_all() -> None:
            self._save_best()
            write()

        while not self.attempt(save_all):
            self._sleep(max(0.0, self._not_before - self._clock()))

    def _save_best(self) -> None:
        if self._unsaved_best is not None:
            self._checkpoints.save_best(*self._unsaved_best)
            self._unsaved_best = None

    def _handle_refusal(self, error: Exception) -> None:
        now, patience = self._clock(), self._patience
        self._since = self._since if self._failures else now
        self._failures += 1
        if self._failures >= patience.failures or now - self._since >= patience.longest_s:
            last = self._checkpoints.last
            intact = f"The last checkpoint, {last}, is intact" if last else "There is no checkpoint yet"
            raise StorageError(
                f"The storage has refused {self._failures} times in {(now - self._since) / 60:.0f} minutes. Last "
                f"error: {error} {intact}. Free space or fix the storage, then run the same command again to resume."
            ) from error
        wait = patience.backoff.wait_s(self._failures)
        self._not_before = now + wait
        self._warn(
            f"{error} Training continues; the next attempt to save is in {wait:.0f} s "
            f"(failure {self._failures} of {patience.failures})."
        )

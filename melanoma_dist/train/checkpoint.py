"""Checkpoints of a unit: written atomically, checked before they are loaded, the last good one never deleted.

    checkpoints/
      epoch-00007-step-0000120/    state.pt, best.txt, manifest.json: the state after 7 epochs and 120 steps of the next
      best-0005/                   model.safetensors, manifest.json

Each folder is committed (``storage.atomic``): under its final name it is complete. A unit resumes from the newest
checkpoint whose hashes match. ``best.txt`` names the folder of the best epoch so far. Checkpoints hold only tensors
and plain types, so loading one cannot run code.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from melanoma_dist.errors import TrainingError
from melanoma_dist.storage import atomic
from melanoma_dist.storage.tensors import load_tensors

_RETAINED = 2  # intact checkpoints to resume from: the newest, and the one before it in case the newest gets corrupt
_STATE, _BEST, _MODEL = "state.pt", "best.txt", "model.safetensors"
_REFUSED_WRITES = (OSError, RuntimeError, SafetensorError)  # PyTorch and safetensors have their own for a full disk

State = dict[str, Any]
"""The state of a unit: tensors and plain types."""


class NotSaved(TrainingError):
    """The storage refused a checkpoint; earlier ones are intact."""


@dataclass(frozen=True, order=True)
class Cursor:
    """A position in the training: the current epoch, from 0, and the number of its finished steps."""

    epoch: int = 0
    step: int = 0

    @property
    def name(self) -> str:
        """Name of the checkpoint. Names sort like cursors."""
        return f"epoch-{self.epoch:05d}-step-{self.step:07d}"

    @property
    def epoch_of_state(self) -> int:
        """The epoch, from 0, of the last step: its hyperparameters are those of the state. -1 before the first."""
        return self.epoch if self.step else self.epoch - 1

    def describe(self, steps: int) -> str:
        """Describe the position for people. An epoch has ``steps`` steps."""
        return f"step {self.step} of {steps} of epoch {self.epoch + 1}" if self.step else f"epoch {self.epoch}"

    def state_dict(self) -> dict[str, int]:
        """Return plain values, for a checkpoint."""
        return dict(self.__dict__)


class Checkpoints:
    """The checkpoints of one unit, in one folder. Only the main rank writes."""

    def __init__(self, folder: Path, warn: Callable[[str], object]) -> None:
        """``warn`` takes a message for each corrupt checkpoint."""
        self._folder = folder
        self._warn = warn
        self.last: str | None = None
        """Name of the checkpoint that was saved last, or that ``newest`` returned."""

    def save(self, cursor: Cursor, state: State, keep_best: int) -> None:
        """Save the state at ``cursor``, whose best epoch is ``keep_best``; then delete checkpoints no longer needed.

        Raises NotSaved, from the error of the storage.
        """

        def write(folder: Path) -> None:
            torch.save(state, folder / _STATE)
            (folder / _BEST).write_text(_best_name(keep_best))

        self._write(cursor.name, write)
        self.last = cursor.name
        with suppress(OSError):  # what remains is deleted after the next save
            self._retain(cursor.name)

    def newest(self) -> str | None:
        """Return the name of the newest intact state, or None where there is no checkpoint.

        Raises TrainingError when all checkpoints are corrupt.
        """
        errors = []
        for name, folder in reversed(self._committed("epoch-*").items()):
            error = _integrity_error(folder)
            if error is None:
                self.last = name
                return name
            self._warn(f"{folder} is corrupt ({error}); falling back to the checkpoint before it.")
            errors.append(f"{name}: {error}")
        if errors:
            raise TrainingError(
                f"{self._folder}: every checkpoint is corrupt ({'; '.join(errors)}). "
                "Delete the folder to train the fold again."
            )
        return None

    def load(self, name: str) -> State:
        """Load the state that ``newest`` named. Checks it again, because another rank may read another copy."""
        folder = self._committed(name).get(name, self._folder / name)
        if error := _integrity_error(folder):
            raise TrainingError(
                f"{folder} is corrupt on one rank and intact on another ({error}). Its ranks must share one storage."
            )
        try:
            state: State = load_tensors(folder / _STATE)
        except (OSError, ValueError) as cause:
            raise TrainingError(
                f"{folder}: {_STATE} was not written by this program ({cause}). "
                "Delete the folder to resume from the checkpoint before it."
            ) from cause
        return state

    def after_epoch(self, epochs: int) -> dict[str, Path]:
        """Map the names of the state after ``epochs`` epochs and of its best epoch to their folders.

        It is empty unless both are intact.
        """
        name = Cursor(epochs).name
        state = self._committed(name).get(name)
        if state is None or _integrity_error(state):
            return {}
        best_name = (state / _BEST).read_text()
        best = self._committed("best-*").get(best_name)
        if best is None or atomic.integrity_error(best, required=(_MODEL,)):
            return {}
        return {best_name: best, name: state}

    def save_best(
        self,
        epoch: int,
        model: dict[str, torch.Tensor],
        about: dict[str, str] | None = None,
    ) -> None:
        """Save the weights of the best epoch, with ``about`` as metadata."""

        def write(folder: Path) -> None:
            save_file({key: value.contiguous() for key, value in model.items()}, folder / _MODEL, about)
            _sort_header(folder / _MODEL)

        self._write(_best_name(epoch), write)

    def best(self, epoch: int) -> Path:
        """Return the weights file of the best epoch. Raises TrainingError if corrupt."""
        name = _best_name(epoch)
        folder = self._committed(name).get(name, self._folder / name)
        if error := atomic.integrity_error(folder, required=(_MODEL,)):
            raise TrainingError(f"{folder} is corrupt or missing ({error}). Delete the fold's folder to retrain it.")
        return folder / _MODEL

    def _committed(self, pattern: str) -> dict[str, Path]:
        return atomic.committed_folders(self._folder, pattern)

    def _write(self, name: str, write: atomic.Write) -> None:
        final = self._folder / name
        try:
            atomic.write_folder(final, write)
        except _REFUSED_WRITES as error:
            raise NotSaved(
                f"{final}: the checkpoint could not be written ({error}); earlier ones are intact."
            ) from error

    def _retain(self, newest: str) -> None:
        """Retain the checkpoint just saved, the last intact one before it and the best epochs of both; delete others.

        A checkpoint later than ``newest`` is corrupt: the unit resumed from one before it.
        """
        states = self._committed("epoch-*")
        before = [name for name in states if name < newest]
        retained = [newest]
        while before and len(retained) < _RETAINED:
            if _integrity_error(states[name := before.pop()]) is None:
                retained.append(name)
        retained += [(states[name] / _BEST).read_text() for name in retained]
        for name, folder in (states | self._committed("best-*")).items():
            if name not in retained:
                atomic.remove_folder(folder)


def _best_name(epoch: int) -> str:
    return f"best-{epoch:04d}"


def _integrity_error(folder: Path) -> str | None:
    return atomic.integrity_error(folder, required=(_STATE, _BEST))


def _sort_header(path: Path) -> None:
    """Sort the metadata of a safetensors file, which come in random order, so that equal weights are equal files."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        if "__metadata__" in header:
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= size:
            file.seek(8)
            file.write(text.ljust(size))

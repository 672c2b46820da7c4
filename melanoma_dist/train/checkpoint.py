"""Checkpoints of a unit: whole or not there, checked before they are loaded, the last good one never deleted.

    checkpoints/
      epoch-00007-step-0000120/    state.pt, best.txt, manifest.json; to go on from: 7 epochs and 120 steps of the next
      best-0005/                   model.safetensors, validation.safetensors, manifest.json

Each is a committed folder (``commit``): under its final name it is complete. A damaged one (a hash differs) is passed
over for the one before it. ``best.txt`` names the folder of the best epoch so far. Tensors and plain types only:
nothing that is loaded can run code.
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
from safetensors.torch import load_file, save_file

from melanoma_dist.errors import TrainingError
from melanoma_dist.storage import atomic
from melanoma_dist.storage.tensors import load_tensors

_KEPT = 2  # good checkpoints to go on from: the newest, and the one to fall back on
_STATE, _BEST, _MODEL, _VALIDATION = "state.pt", "best.txt", "model.safetensors", "validation.safetensors"
_REFUSED_WRITES = (OSError, RuntimeError, SafetensorError)  # PyTorch and safetensors have their own for a full disk


State = dict[str, Any]
"""What a unit is resumed from: tensors and plain types."""


class NotSaved(TrainingError):
    """The storage refused a checkpoint; earlier ones are intact."""


@dataclass(frozen=True, order=True)
class Cursor:
    """Where a training stands: the epoch that it is in, from 0, and how many of its steps are done."""

    epoch: int = 0
    step: int = 0

    @property
    def name(self) -> str:
        """The checkpoint's; names are in the order of cursors."""
        return f"epoch-{self.epoch:05d}-step-{self.step:07d}"

    def describe(self, steps: int) -> str:
        """For people; an epoch has ``steps`` steps."""
        return f"step {self.step} of {steps} of epoch {self.epoch + 1}" if self.step else f"epoch {self.epoch}"

    def state_dict(self) -> dict[str, int]:
        """Plain values, for a checkpoint."""
        return dict(self.__dict__)


class Checkpoints:
    """The checkpoints of one unit, in one folder. Only the main rank writes."""

    def __init__(self, folder: Path, warn: Callable[[str], object]) -> None:
        """``warn`` is told of checkpoints that are damaged."""
        self._folder = folder
        self._warn = warn
        self.last: str | None = None
        """The name of the checkpoint last saved, or found as the newest."""

    def save(self, cursor: Cursor, state: State, keep_best: int) -> None:
        """Save the state at ``cursor``, whose best epoch is ``keep_best``; then drop what nobody will go back to.

        Raises NotSaved, caused by what the storage said.
        """

        def write(folder: Path) -> None:
            torch.save(state, folder / _STATE)
            (folder / _BEST).write_text(_best_name(keep_best))

        self._write(cursor.name, write)
        self.last = cursor.name
        with suppress(OSError):  # what stays now is dropped after the next one
            self._retain(cursor.name)

    def newest(self) -> str | None:
        """The name of the newest state that is undamaged, or None where there is no checkpoint.

        Raises TrainingError when there are checkpoints and none is good.
        """
        damages = []
        for name, folder in reversed(self._standing("epoch-*").items()):
            why = _damage(folder)
            if why is None:
                self.last = name
                return name
            self._warn(f"{folder} is damaged ({why}); falling back to the checkpoint before it.")
            damages.append(f"{name}: {why}")
        if damages:
            raise TrainingError(
                f"{self._folder}: every checkpoint is damaged ({'; '.join(damages)}). "
                "Delete the folder to train the fold anew."
            )
        return None

    def load(self, name: str) -> State:
        """The state that ``newest`` named, checked anew: another rank may read another copy."""
        folder = self._standing(name).get(name, self._folder / name)
        if why := _damage(folder):
            raise TrainingError(
                f"{folder} is damaged for one rank and not for another ({why}): is its storage one and the same?"
            )
        try:
            state: State = load_tensors(folder / _STATE)
        except (OSError, ValueError) as error:
            raise TrainingError(
                f"{folder}: its state is none that this program wrote ({error}). "
                "Delete it to go on from the checkpoint before it."
            ) from error
        return state

    def save_best(
        self,
        epoch: int,
        model: dict[str, torch.Tensor],
        validation: dict[str, torch.Tensor],
        about: dict[str, str] | None = None,
    ) -> None:
        """Save the weights of the best epoch, with ``about`` as metadata, and what they predict for the validation."""

        def write(folder: Path) -> None:
            save_file({key: value.contiguous() for key, value in model.items()}, folder / _MODEL, about)
            _sort_header(folder / _MODEL)
            save_file(validation, folder / _VALIDATION)

        self._write(_best_name(epoch), write)

    def best(self, epoch: int) -> tuple[Path, dict[str, torch.Tensor]]:
        """The weights file of the best epoch, and its validation tensors. Raises TrainingError if damaged."""
        name = _best_name(epoch)
        folder = self._standing(name).get(name, self._folder / name)
        if why := atomic.integrity_error(folder, required=(_MODEL, _VALIDATION)):
            raise TrainingError(f"{folder} is damaged or missing ({why}). Delete the fold's folder to train it anew.")
        return folder / _MODEL, load_file(folder / _VALIDATION)

    def _standing(self, pattern: str) -> dict[str, Path]:
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
        """Keep the checkpoint just saved, the last good one before it, and the best epochs of both; drop the rest.

        A damaged one counts for nothing, and one that is later than the newest was fallen back from.
        """
        states = self._standing("epoch-*")
        before = [name for name in states if name < newest]
        kept = [newest]
        while before and len(kept) < _KEPT:
            if _damage(states[name := before.pop()]) is None:
                kept.append(name)
        kept += [(states[name] / _BEST).read_text() for name in kept]
        for name, folder in (states | self._standing("best-*")).items():
            if name not in kept:
                atomic.remove_folder(folder)


def best_hashes(folder: Path) -> set[str]:
    """The sha256 of the weights that the best epochs in a unit's ``checkpoints`` left; empty where none is there."""
    try:
        return {atomic.read_manifest(best)[_MODEL] for best in atomic.committed_folders(folder, "best-*").values()}
    except (OSError, ValueError, KeyError):
        return set()


def _best_name(epoch: int) -> str:
    return f"best-{epoch:04d}"


def _damage(folder: Path) -> str | None:
    return atomic.integrity_error(folder, required=(_STATE, _BEST))


def _sort_header(path: Path) -> None:
    """Bring the metadata of a safetensors file, which come in random order, into one: equal weights are equal files."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        if "__metadata__" in header:
            header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= size:
            file.seek(8)
            file.write(text.ljust(size))

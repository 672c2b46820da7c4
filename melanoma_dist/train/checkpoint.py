"""Checkpoints of a unit: whole or not there, checked before they are loaded, the last good one never deleted.

    checkpoints/
      epoch-0007/    state.pt, best.txt, manifest.json      to go on from; best.txt names the folder of its best epoch
      best-0005/     model.safetensors, validation.safetensors, manifest.json

Each is a committed folder (``commit``): under its final name it is complete. A damaged one (a hash differs) is passed
over for the one before it. Tensors and plain types only: nothing that is loaded can run code.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from melanoma_dist import commit
from melanoma_dist.errors import TrainingError

_KEPT = 2  # good checkpoints to go on from: the newest, and the one to fall back on
_STATE, _BEST, _MODEL, _VALIDATION = "state.pt", "best.txt", "model.safetensors", "validation.safetensors"
_REFUSED_WRITES = (OSError, RuntimeError, SafetensorError)  # PyTorch and safetensors have their own for a full disk
_REFUSED_LOADS = (pickle.UnpicklingError, RuntimeError, ValueError, OSError, EOFError, KeyError, TypeError)


class Checkpoints:
    """The checkpoints of one unit, in one folder. Only the main rank writes."""

    def __init__(self, folder: Path, warn: Callable[[str], object]) -> None:
        """``warn`` is told of checkpoints that are damaged."""
        self._folder = folder
        self._warn = warn

    def save(self, epoch: int, state: dict[str, Any], keep_best: int) -> None:
        """Save the state after ``epoch``, whose best epoch is ``keep_best``; then drop what nobody will go back to.

        Raises TrainingError when the storage refuses, caused by what it said; earlier ones are intact then.
        """
        name = f"epoch-{epoch:04d}"

        def write(folder: Path) -> None:
            torch.save(state, folder / _STATE)
            (folder / _BEST).write_text(_best_name(keep_best))

        self._write(name, write)
        with suppress(OSError):  # what stays now is dropped after the next one
            self._retain(name)

    def newest(self) -> dict[str, Any] | None:
        """The newest state that is undamaged, or None where there is no checkpoint.

        Raises TrainingError when there are checkpoints and none is good.
        """
        damages = []
        for folder in reversed(self._standing("epoch-*")):
            why = commit.damage(folder, needed=(_STATE, _BEST))
            if why is None:
                try:
                    state: dict[str, Any] = torch.load(folder / _STATE, map_location="cpu", weights_only=True)
                    return state
                except _REFUSED_LOADS as error:
                    why = f"{_STATE} cannot be loaded: {str(error).strip().partition('. ')[0]}"
            self._warn(f"{folder} is damaged ({why}); falling back to the checkpoint before it.")
            damages.append(f"{folder.name}: {why}")
        if damages:
            raise TrainingError(
                f"{self._folder}: every checkpoint is damaged ({'; '.join(damages)}). "
                "Delete the folder to train the fold anew."
            )
        return None

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
            save_file(validation, folder / _VALIDATION)

        self._write(_best_name(epoch), write)

    def best(self, epoch: int) -> tuple[Path, dict[str, torch.Tensor]]:
        """The weights file of the best epoch, and its validation tensors. Raises TrainingError if damaged."""
        folder = next(iter(self._standing(_best_name(epoch))), self._folder / _best_name(epoch))
        if why := commit.damage(folder, needed=(_MODEL, _VALIDATION)):
            raise TrainingError(f"{folder} is damaged or missing ({why}). Delete the fold's folder to train it anew.")
        return folder / _MODEL, load_file(folder / _VALIDATION)

    def _standing(self, pattern: str) -> list[Path]:
        return commit.standing(self._folder, pattern)

    def _write(self, name: str, write: commit.Write) -> None:
        final = self._folder / name
        try:
            commit.write_folder(final, write)
        except _REFUSED_WRITES as error:
            raise TrainingError(
                f"{final}: the checkpoint could not be written ({error}); earlier ones are intact."
            ) from error

    def _retain(self, newest: str) -> None:
        """Keep the checkpoint just saved, the last good one before it, and the best epochs of both; drop the rest.

        A damaged one counts for nothing, and one that is later than the newest was fallen back from.
        """
        before = [folder for folder in self._standing("epoch-*") if folder.name < newest]
        kept = [self._folder / newest]
        while before and len(kept) < _KEPT:
            folder = before.pop()
            if commit.damage(folder, needed=(_STATE, _BEST)) is None:
                kept.append(folder)
        kept += [self._folder / (folder / _BEST).read_text() for folder in kept]
        for old in [*self._standing("epoch-*"), *self._standing("best-*")]:
            if old not in kept:
                commit.remove_folder(old)


def best_hashes(folder: Path) -> set[str]:
    """The sha256 of the weights that the best epochs in a unit's ``checkpoints`` left; empty where none is there."""
    try:
        return {commit.manifest(best)[_MODEL] for best in commit.standing(folder, "best-*")}
    except (OSError, ValueError, KeyError):
        return set()


def _best_name(epoch: int) -> str:
    return f"best-{epoch:04d}"

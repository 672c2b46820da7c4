"""Checkpoints of a unit: whole or not there, checked before they are loaded, the last good one never deleted.

    checkpoints/
      epoch-0007-step-000120/    state.pt, manifest.json      to go on from: 7 epochs and 120 steps of the next
      best-0005/                 model.safetensors, validation.safetensors, manifest.json

A checkpoint is written into a folder aside, flushed to disk, hashed, its manifest written last, and then renamed: a
folder under its final name is complete. A damaged one (its hash differs) is passed over for the one before it.
Tensors and plain types only: nothing that is loaded can run code.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from melanoma_dist.errors import TrainingError

_KEPT = 2  # checkpoints to go on from: the newest, and the one to fall back on
_MANIFEST = "manifest.json"


@dataclass(frozen=True, order=True)
class Cursor:
    """Where a training stands: the epoch that it is in, from 0, and how many of its steps are done."""

    epoch: int = 0
    step: int = 0

    @property
    def name(self) -> str:
        """The checkpoint's; names are in the order of cursors."""
        return f"epoch-{self.epoch:05d}-step-{self.step:07d}"

    def told(self, steps: int) -> str:
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

    def save(self, cursor: Cursor, state: dict[str, Any], keep_best: int) -> None:
        """Save the state at ``cursor``; drop older ones but the last before it, and every best but ``keep_best``."""
        self._commit(cursor.name, lambda folder: torch.save(state, folder / "state.pt"))
        for old in self._states()[_KEPT:]:
            shutil.rmtree(old)
        # The best of the older checkpoint stays too: falling back must find what that state calls its best.
        for old in sorted(self._folder.glob("best-*")):
            if int(old.name.removeprefix("best-")) < keep_best and old != self._best_before(keep_best):
                shutil.rmtree(old)

    def newest(self) -> str | None:
        """The name of the newest state that is undamaged, or None where there is no checkpoint.

        Raises TrainingError when there are checkpoints and none is good.
        """
        candidates = self._states()
        for folder in candidates:
            if self._good(folder):
                return folder.name
            self._warn(f"{folder} is damaged; falling back to the checkpoint before it.")
        if candidates:
            raise TrainingError(
                f"{self._folder}: every checkpoint is damaged. Delete the folder to train the fold anew."
            )
        return None

    def load(self, name: str) -> dict[str, Any]:
        """The state that ``newest`` named, checked anew: another rank may read another copy."""
        folder = self._folder / name
        if not self._good(folder):
            raise TrainingError(
                f"{folder} is damaged for one rank and not for another: is its storage one and the same?"
            )
        state: dict[str, Any] = torch.load(folder / "state.pt", map_location="cpu", weights_only=True)
        return state

    def _states(self) -> list[Path]:
        """The newest first."""
        return sorted(self._folder.glob("epoch-*"), reverse=True)

    def save_best(
        self,
        epoch: int,
        model: dict[str, torch.Tensor],
        validation: dict[str, torch.Tensor],
        about: dict[str, str] | None = None,
    ) -> None:
        """Save the weights of the best epoch, with ``about`` as metadata, and what they predict for the validation."""

        def write(folder: Path) -> None:
            weights = folder / "model.safetensors"
            save_file({key: value.contiguous() for key, value in model.items()}, weights, about)
            _sort_header(weights)
            save_file(validation, folder / "validation.safetensors")

        self._commit(f"best-{epoch:04d}", write)

    def best(self, epoch: int) -> tuple[Path, dict[str, torch.Tensor]]:
        """The weights file of the best epoch, and its validation tensors. Raises TrainingError if damaged."""
        folder = self._folder / f"best-{epoch:04d}"
        if not self._good(folder):
            raise TrainingError(f"{folder} is damaged or missing. Delete the fold's folder to train it anew.")
        return folder / "model.safetensors", load_file(folder / "validation.safetensors")

    def _best_before(self, epoch: int) -> Path | None:
        older = sorted(path for path in self._folder.glob("best-*") if int(path.name.removeprefix("best-")) < epoch)
        return older[-1] if older else None

    def _commit(self, name: str, write: Callable[[Path], object]) -> None:
        final, aside = self._folder / name, self._folder / f".{name}.tmp"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        try:
            write(aside)
            files = {path.name: _sha256(path) for path in sorted(aside.iterdir())}
            (aside / _MANIFEST).write_text(json.dumps({"files": files}, indent=1))
            for path in (*aside.iterdir(), aside):
                _flush(path)
        except (
            OSError,
            RuntimeError,
            SafetensorError,
        ) as error:  # PyTorch and safetensors have their own for a full disk
            shutil.rmtree(aside, ignore_errors=True)
            raise TrainingError(
                f"{final}: the checkpoint could not be written ({error}); earlier ones are intact."
            ) from error
        if final.exists():  # of an earlier attempt at the same epoch
            shutil.rmtree(final)
        aside.rename(final)
        _flush(self._folder)

    def _good(self, folder: Path) -> bool:
        try:
            files = json.loads((folder / _MANIFEST).read_text())["files"]
            return bool(files) and all(_sha256(folder / name) == digest for name, digest in files.items())
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return False


def best_hashes(folder: Path) -> set[str]:
    """The sha256 of the weights that the best epochs in a unit's ``checkpoints`` left; empty where none is there."""
    try:
        manifests = [json.loads(path.read_text()) for path in folder.glob(f"best-*/{_MANIFEST}")]
        return {manifest["files"]["model.safetensors"] for manifest in manifests}
    except (OSError, ValueError, KeyError, TypeError):
        return set()


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


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    for block in _blocks(path):
        digest.update(block)
    return digest.hexdigest()


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(2**20):
            yield block


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""What a unit leaves on the disk while it is trained: curves, checkpoints, a line per epoch; and a mirror's copy.

Only the main rank has one. It writes checkpoints beside the training, in a thread; the state that it is given is
copied first, so that the next steps do not wait for the disk. So that a kill loses no more than the interval that was
asked for, a checkpoint is begun earlier by the time that the last one took; where the interval is a number of steps,
training waits until it is on the disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy.typing as npt
import torch

from melanoma_dist.data.labels import LABEL_SETS
from melanoma_dist.errors import StorageError
from melanoma_dist.mirror.run_mirror import MirrorPart
from melanoma_dist.mirror.uploader import Uploader
from melanoma_dist.train.background import Background, copy_to_cpu
from melanoma_dist.train.checkpoint import Checkpoints, Cursor
from melanoma_dist.train.clock import CheckpointInterval
from melanoma_dist.train.fold_data import FoldData
from melanoma_dist.train.result import weights_metadata, write_metrics, write_result
from melanoma_dist.train.saving import Best, Saver
from melanoma_dist.train.tensorboard import TensorBoardLogger
from melanoma_dist.train.unit import Unit

_LEAVING_S, _LAST_WAIT_S = 20.0, 600.0  # for what a mirror still lacks


class ArtifactWriter:
    """Writes all that a unit leaves, but for what it is told."""

    def __init__(self, unit: Unit, checkpoints: Checkpoints, note: Callable[[str], None]) -> None:
        """``note`` is told of a disk that refuses, and when it takes something again."""
        self._unit, self._labels = unit, LABEL_SETS[unit.config.data.labels]
        self.tensorboard = TensorBoardLogger(unit, self._labels, note)
        self._checkpoints, self._saver, self._background = checkpoints, Saver(checkpoints, note), Background()
        steps, seconds = unit.config.fault_tolerance.checkpoint_interval
        self._interval, self._by_steps = CheckpointInterval(steps, seconds), steps is not None
        self._writing_s = 0.0  # the last time
        self._uploader: Uploader | None = None
        if unit.mirror is not None:
            self._uploader = MirrorPart(unit.mirror, unit.run, unit.fold).uploader(note)

    def due(self) -> bool:
        """Called after every step: whether it is time for a checkpoint, or to try again what was refused.

        Raises StorageError where the storage has refused for too long.
        """
        return self._interval.due(self._writing_s) or (not self._background.busy() and self._saver.due())

    def best(self, epoch: int, model: torch.nn.Module, probability: npt.NDArray[Any]) -> Best:
        """The epoch's weights and what they predict for the validation, as ``save`` takes them."""
        kept = {"probability": torch.from_numpy(probability)}
        return Best(epoch, copy_to_cpu(model.state_dict()), kept, weights_metadata(self._unit, epoch))

    def save(self, cursor: Cursor, state: dict[str, Any], keep_best: int, best: Best | None = None) -> None:
        """Save where the training stands, after the ``best`` epoch that the state names, as soon as the disk can."""
        self.tensorboard.flush()
        self._background.start(partial(self._write, cursor, copy_to_cpu(state), keep_best, best))
        self._interval.saved()
        if self._by_steps:
            self.wait()

    def save_now(self, cursor: Cursor, state: dict[str, Any], keep_best: int) -> None:
        """The same, for the last time. Raises StorageError where the storage refuses."""
        self.wait()
        self.tensorboard.flush()
        if not self._saver.save(cursor, state, keep_best, urgent=True):
            raise StorageError(f"{self._unit.name} could not be saved; its last checkpoint is intact.")

    def wait(self) -> None:
        """Wait until what is being saved is on the disk, or refused."""
        self._background.wait()

    def finish(self, fold_data: FoldData, history: list[dict[str, Any]], best_epoch: int) -> None:
        """Leave the result: the best epoch's weights, and what they predict. Waits for a storage that refuses."""
        self.wait()

        def leave() -> None:
            weights, kept = self._checkpoints.best(best_epoch)
            write_metrics(self._unit, history)
            write_result(self._unit, fold_data, self._labels, weights, kept["probability"].numpy())

        self._saver.retry_until_done(leave)
        self._end(_LAST_WAIT_S)

    def leave(self) -> None:
        """The unit goes on another time."""
        self._end(_LEAVING_S)

    def close(self) -> None:
        """Wait for the thread: no two may write a unit's checkpoints."""
        self._background.close()

    def _write(self, cursor: Cursor, state: dict[str, Any], keep_best: int, best: Best | None) -> None:
        start = time.monotonic()
        self._saver.save(cursor, state, keep_best, best)
        self._writing_s = time.monotonic() - start
        self._saver.attempt(lambda: write_metrics(self._unit, state["history"]))
        if self._uploader is not None:
            self._uploader.notify()

    def _end(self, wait_s: float) -> None:
        self.tensorboard.close()
        if self._uploader is not None:
            self._uploader.close(wait_s)

"""Writes the files of a unit on the main rank: events, checkpoints, a record per epoch, the result, a mirrored copy.

Checkpoints are written in a thread beside the training. The state is copied first, so that the next steps do not wait
for the disk. A kill must lose no more than ``checkpoint_every``: a checkpoint therefore starts earlier than that by the
time that the last one took. With an interval in steps, training waits until the checkpoint is on the disk.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from melanoma_dist.artifacts.epochs import EpochRecord, write_epochs
from melanoma_dist.errors import StorageError
from melanoma_dist.mirror.run_mirror import MirrorPart
from melanoma_dist.mirror.uploader import Uploader
from melanoma_dist.train.background import Background, copy_to_cpu
from melanoma_dist.train.checkpoint import Checkpoints, Cursor, State
from melanoma_dist.train.clock import CheckpointInterval
from melanoma_dist.train.saving import Best, Saver
from melanoma_dist.train.tensorboard import TensorBoardLogger
from melanoma_dist.train.unit import Unit

_UPLOAD_ON_PAUSE_S, _UPLOAD_AT_END_S = 20.0, 600.0  # how long to wait for a mirror


class ArtifactWriter:
    """Writes the files of one unit."""

    def __init__(self, unit: Unit, checkpoints: Checkpoints, note: Callable[[str], None]) -> None:
        """``note`` takes a message when the disk refuses a file, and when it accepts files again."""
        self._unit = unit
        self.tensorboard = TensorBoardLogger(unit, note)
        self._checkpoints, self._saver, self._background = checkpoints, Saver(checkpoints, note), Background()
        steps, seconds = unit.config.fault_tolerance.checkpoint_interval
        self._interval, self._by_steps = CheckpointInterval(steps, seconds), steps is not None
        self._write_s = 0.0  # of the last checkpoint
        self._uploader: Uploader | None = None
        if unit.mirror is not None:
            self._uploader = MirrorPart(unit.mirror, unit.run, unit.fold).uploader(note)

    def due(self) -> bool:
        """Tell, after every step, whether to save a checkpoint or to retry a refused one.

        Raises StorageError when the storage has refused for too long.
        """
        return self._interval.due(self._write_s) or (not self._background.busy() and self._saver.due())

    def save(
        self, cursor: Cursor, state: State, history: Sequence[EpochRecord], keep_best: int, best: Best | None = None
    ) -> None:
        """Save ``best``, then the state that names it, then the epochs; in the background, when the disk is free."""
        self.tensorboard.flush()
        self._background.start(partial(self._write, cursor, copy_to_cpu(state), tuple(history), keep_best, best))
        self._interval.saved()
        if self._by_steps:
            self.wait()

    def save_now(self, cursor: Cursor, state: State, keep_best: int) -> None:
        """Save a last checkpoint at once. Raises StorageError when the storage refuses it."""
        self.wait()
        self.tensorboard.flush()
        if not self._saver.save(cursor, state, keep_best, urgent=True):
            raise StorageError(f"{self._unit.name} could not be saved; its last checkpoint is intact.")

    def wait(self) -> None:
        """Wait until the checkpoint in work is on the disk, or refused."""
        self._background.wait()

    def best_weights(self, epoch: int) -> Path:
        """Return the weights file of the best epoch. Waits for a storage that refuses it."""
        self.wait()
        self._saver.retry_until_done(lambda: None)
        return self._checkpoints.best(epoch)

    def finish(self, history: Sequence[EpochRecord], write_result: Callable[[], None]) -> None:
        """Write the epochs, then the result. Waits for a storage that refuses."""

        def write() -> None:
            write_epochs(self._unit.folder, history)
            write_result()

        self._saver.retry_until_done(write)
        self._close_files(_UPLOAD_AT_END_S)

    def pause(self) -> None:
        """Close the files of a unit that will be resumed."""
        self._close_files(_UPLOAD_ON_PAUSE_S)

    def close(self) -> None:
        """Wait for the thread: no two may write the checkpoints of a unit."""
        self._background.close()

    def _write(
        self, cursor: Cursor, state: State, history: Sequence[EpochRecord], keep_best: int, best: Best | None
    ) -> None:
        start = time.monotonic()
        self._saver.save(cursor, state, keep_best, best)
        self._write_s = time.monotonic() - start
        self._saver.attempt(lambda: write_epochs(self._unit.folder, history))
        if self._uploader is not None:
            self._uploader.notify()

    def _close_files(self, upload_s: float) -> None:
        self.tensorboard.close()
        if self._uploader is not None:
            self._uploader.close(upload_s)

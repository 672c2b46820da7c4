"""Segments images on one device, or on several GPUs by a process each, with the same batches in the same order."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from melanoma_dist.artifacts.lesion_table import ENSEMBLE, lesion_row, write_mask
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.errors import DataError
from melanoma_dist.inference.images import Images
from melanoma_dist.inference.lesion_masks import LEAST_AREA
from melanoma_dist.inference.segmenter import TrainedSegmenter
from melanoma_dist.train.device import configure_device
from melanoma_dist.world import World

Rows = list[dict[str, Any]]
"""Of the lesion table, for the images of a batch."""

_SPAWN = multiprocessing.get_context("spawn")


@dataclass(frozen=True)
class Batch:
    """Images that one model, or the mean of all models (fold None), segments together."""

    fold: int | None
    images: npt.NDArray[np.int64]
    """Their rows in the manifest."""


@dataclass(frozen=True)
class MaskWriter:
    """Segments images of a data set and writes their masks into a folder."""

    run: TrainedSegmenter
    dataset: Dataset
    out: Path
    batch_size: int

    def write(self, batches: Sequence[Batch]) -> Iterator[Rows]:
        """Write the masks of each batch, then yield its rows. Only the last batch of a fold may be smaller."""
        images = self.dataset.manifest[["image_id", "height", "width"]]
        for fold in dict.fromkeys(batch.fold for batch in batches):
            rows = np.concatenate([batch.images for batch in batches if batch.fold == fold])
            model = ENSEMBLE if fold is None else f"fold-{fold}"
            for pixels, batch in self.run.loader(Images(self.dataset, rows), self.batch_size):
                own = images.iloc[rows[batch.samples[: batch.count]]]
                sizes = list(zip(own["width"].tolist(), own["height"].tolist(), strict=True))
                done = []
                for name, (mask, quality) in zip(own["image_id"], self.run.masks(pixels, sizes, fold), strict=True):
                    write_mask(self.out, name, mask)
                    done.append(lesion_row(name, model, mask, quality, LEAST_AREA))
                yield done


@contextmanager
def written_masks(writer: MaskWriter, batches: Sequence[Batch], worlds: Sequence[World]) -> Iterator[Iterator[Rows]]:
    """Within the context, the rows of each batch in order, while a process for each of ``worlds`` writes its masks.

    One world is this process. Raises DataError for a process that was killed, and what a process raises.
    """
    if len(worlds) == 1:
        yield writer.write(batches)
        return
    with ExitStack() as stack:
        workers = [
            stack.enter_context(
                _process(replace(writer, run=replace(writer.run, world=world)), batches[at :: len(worlds)])
            )
            for at, world in enumerate(worlds)
        ]
        yield (_received(*workers[at % len(workers)]) for at in range(len(batches)))


@contextmanager
def _process(writer: MaskWriter, batches: Sequence[Batch]) -> Iterator[tuple[Connection, World]]:
    here, there = _SPAWN.Pipe(duplex=False)
    process = _SPAWN.Process(target=_send_rows, args=(writer, batches, there), daemon=True)
    process.start()
    there.close()  # so that its end closes the pipe
    try:
        yield here, writer.run.world
    finally:
        here.close()
        process.kill()
        process.join()


def _received(pipe: Connection, world: World) -> Rows:
    try:
        message: Rows | Exception = pipe.recv()
    except EOFError as error:
        raise DataError(
            f"the process that segments on {world.device} was killed, usually because memory ran out. Run the same "
            "command again with a smaller --batch-size."
        ) from error
    if isinstance(message, Exception):
        raise message
    return message


def _send_rows(writer: MaskWriter, batches: Sequence[Batch], pipe: Connection) -> None:
    """The function of a process. A full pipe makes it wait, so that it is never far ahead of the journal."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):  # the command handles them, and ends this process
        signal.signal(number, signal.SIG_IGN)
    configure_device(writer.run.world.gpu, writer.run.world.threads)
    with suppress(BrokenPipeError):  # the command ended
        try:
            for rows in writer.write(batches):
                pipe.send(rows)
        except Exception as error:
            pipe.send(error)

"""Converts out-of-memory errors: with smaller micro-batches, the unit may fit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from melanoma_dist.config.run import RunConfig
from melanoma_dist.errors import OutOfMemory, TrainingError, is_of_memory
from melanoma_dist.train.unit import Unit
from melanoma_dist.world import World


@contextmanager
def convert_memory_errors(unit: Unit, world: World) -> Iterator[None]:
    """Convert errors of a full memory to OutOfMemory, or to TrainingError where nothing is left to halve."""
    try:
        yield
    except RuntimeError as error:
        if not is_of_memory(error):
            raise
        raise _memory_error(unit, world) from error


def _memory_error(unit: Unit, world: World) -> TrainingError:
    batch, pieces = unit.config.input.batch_size, unit.config.optimizer.accumulate
    at_once = -(-batch // (world.size * pieces))
    device = "the CPU" if world.gpu is None else f"GPU {world.gpu}"
    text = (
        f"{device} ran out of memory with {at_once} image{'' if at_once == 1 else 's'} at once "
        f"(--batch-size {batch} over {world.size} ranks, --accumulate {pieces})"
    )
    more = min(2 * pieces, max_micro_batches(unit.config, world.size))
    if more > pieces:
        return OutOfMemory(text, more)
    return TrainingError(f"{text}: nothing is left to halve. Lower --image-size, or free the device.")


def max_micro_batches(config: RunConfig, ranks: int) -> int:
    """The most micro-batches of a step on one rank: batch norm in the head needs two images in each."""
    smallest = 2 if config.model.head_norm == "batch" else 1
    return max(1, config.input.batch_size // ranks // smallest)

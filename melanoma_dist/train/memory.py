"""What it means that a device ran out of memory: with fewer images at once, a unit may go on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from melanoma_dist.config.run import RunConfig
from melanoma_dist.errors import OutOfMemory, TrainingError, is_of_memory
from melanoma_dist.train.unit import Unit
from melanoma_dist.world import World


@contextmanager
def convert_memory_errors(unit: Unit, world: World) -> Iterator[None]:
    """Raise OutOfMemory where a device had too little of it; TrainingError where there is nothing left to halve."""
    try:
        yield
    except RuntimeError as error:
        if not is_of_memory(error):
            raise
        raise _told(unit, world) from error


def _told(unit: Unit, world: World) -> TrainingError:
    batch, pieces = unit.config.input.batch_size, unit.config.optimizer.accumulate
    at_once = -(-batch // (world.size * pieces))
    device = "the CPU" if world.gpu is None else f"GPU {world.gpu}"
    what = f"{device} ran out of memory with {_count(at_once)} at once"
    how = f"(--batch-size {batch} over {world.size} ranks, --accumulate {pieces})"
    more = min(2 * pieces, max_micro_batches(unit.config, world.size))
    if more > pieces:
        return OutOfMemory(f"{what} {how}", more)
    return TrainingError(f"{what} {how}: nothing is left to halve. Lower --image-size, or free the device.")


def max_micro_batches(config: RunConfig, ranks: int) -> int:
    """Into how many a share of a step can be cut: batch statistics of the head are of two images at least."""
    least = 2 if config.model.head_norm == "batch" else 1
    return max(1, config.input.batch_size // ranks // least)


def _count(images: int) -> str:
    return f"{images} image{'' if images == 1 else 's'}"

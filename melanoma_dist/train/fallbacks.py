"""Fallbacks of a unit: smaller micro-batches after out-of-memory, corrupt images excluded from training.

They are in a file of the unit's folder. The command writes it between two attempts, and every rank reads it at its
start: so all ranks fall back alike, and so does a unit that is resumed another day.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from melanoma_dist.config.run import RunConfig, with_values
from melanoma_dist.errors import CorruptImages, OutOfMemory, TrainingError, is_of_memory
from melanoma_dist.storage import atomic
from melanoma_dist.storage.untrusted import read_json
from melanoma_dist.train.unit import Unit
from melanoma_dist.world import World

_FILE = "fallbacks.json"
_MAX_MICRO_BATCHES = 1024


@dataclass(frozen=True)
class Fallbacks:
    """The fallbacks of a unit so far."""

    accumulate: int = 0
    """Micro-batches per step and rank; 0: as many as are configured."""
    corrupt: tuple[str, ...] = ()
    """Ids of images not to train on."""

    def apply(self, unit: Unit) -> Unit:
        """Return the unit with the configuration that it is trained with."""
        if not self.accumulate:
            return unit
        return replace(unit, config=with_values(unit.config, {"optimizer.accumulate": self.accumulate}))

    def describe(self) -> list[str]:
        """Describe each fallback, without a subject, for messages."""
        parts = []
        if self.accumulate:
            parts.append(f"splits each rank's batch into {self.accumulate} micro-batches, for want of memory")
        if self.corrupt:
            parts.append(f"does not train on {len(self.corrupt)} corrupt images: {', '.join(self.corrupt)}")
        return parts


def read_fallbacks(folder: Path) -> Fallbacks:
    """Read the fallbacks of the unit in ``folder``. Raises TrainingError for a corrupt file."""
    path = folder / _FILE
    if not path.is_file():
        return Fallbacks()
    try:
        content = read_json(path)
        fallbacks = Fallbacks(int(content["accumulate"]), tuple(map(str, content["corrupt"])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path}: cannot be read ({error}). Delete {folder} to train the fold again.") from error
    if not 0 <= fallbacks.accumulate <= _MAX_MICRO_BATCHES:
        raise TrainingError(
            f"{path}: accumulate {fallbacks.accumulate} must be 0 to {_MAX_MICRO_BATCHES}. Delete {folder} to train "
            "the fold again."
        )
    return fallbacks


def fall_back(error: BaseException, unit: Unit) -> str | None:
    """Write the fallback that avoids ``error`` and describe it. Returns None where there is no fallback."""
    before = read_fallbacks(unit.folder)
    if isinstance(error, OutOfMemory) and error.micro_batches <= _MAX_MICRO_BATCHES:
        fallbacks = replace(before, accumulate=error.micro_batches)
    elif isinstance(error, CorruptImages):
        corrupt = sorted({*before.corrupt, *error.image_ids})
        if len(corrupt) > unit.config.fault_tolerance.max_corrupt_images:
            return None
        fallbacks = replace(before, corrupt=tuple(corrupt))
    else:
        return None
    atomic.write_text(unit.folder / _FILE, json.dumps(asdict(fallbacks), indent=1) + "\n")
    return "resumes from its last checkpoint, and " + " and ".join(fallbacks.describe())


def copy_fallbacks(source: Path, folder: Path) -> None:
    """Copy the fallbacks of the unit in ``source``, if it has any, to the unit in ``folder``."""
    if (source / _FILE).is_file():
        atomic.write_file(folder / _FILE, lambda aside: shutil.copyfile(source / _FILE, aside))


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

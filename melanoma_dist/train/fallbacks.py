"""What a unit gave up to its circumstances: micro-batches as large as asked for, images that turned out damaged.

It is kept in a file of the unit, which the command writes between two attempts and every rank reads at its start. So
all ranks do alike, and so does a unit that goes on another day.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from melanoma_dist.config.run import with_values
from melanoma_dist.errors import CorruptImages, OutOfMemory, TrainingError
from melanoma_dist.storage import atomic
from melanoma_dist.storage.untrusted import read_json
from melanoma_dist.train.unit import Unit

_FILE = "fallbacks.json"
_MOST_MICRO_BATCHES = 1024


@dataclass(frozen=True)
class Fallbacks:
    """Made so far."""

    accumulate: int = 0
    """Micro-batches that each rank cuts its share of a step into; 0: as many as were asked for."""
    corrupt: tuple[str, ...] = ()
    """Ids of images that are not learnt from."""

    def apply(self, unit: Unit) -> Unit:
        """The unit as it is trained."""
        if not self.accumulate:
            return unit
        return replace(unit, config=with_values(unit.config, {"optimizer.accumulate": self.accumulate}))

    def describe(self) -> list[str]:
        """In words."""
        parts = []
        if self.accumulate:
            parts.append(f"cuts its share of a step into {self.accumulate} micro-batches, for want of memory")
        if self.corrupt:
            parts.append(f"does not learn from {len(self.corrupt)} damaged images: {', '.join(self.corrupt)}")
        return parts


def read_fallbacks(folder: Path) -> Fallbacks:
    """What a unit with that folder fallbacks before. Raises TrainingError for a file that is not ours."""
    path = folder / _FILE
    if not path.is_file():
        return Fallbacks()
    try:
        content = read_json(path)
        made = Fallbacks(int(content["accumulate"]), tuple(map(str, content["corrupt"])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{path}: cannot be read ({error}). Delete {folder} to train the fold anew.") from error
    if not 0 <= made.accumulate <= _MOST_MICRO_BATCHES:
        raise TrainingError(f"{path}: accumulate {made.accumulate} must be 0 to {_MOST_MICRO_BATCHES}.")
    return made


def fall_back(error: BaseException, unit: Unit) -> str | None:
    """Write down what the unit has to do without after ``error``, and say it. None where nothing can be fallbacks."""
    before = read_fallbacks(unit.folder)
    if isinstance(error, OutOfMemory):
        made = _smaller(error.micro_batches, before)
    elif isinstance(error, CorruptImages):
        made = _without(error.image_ids, unit, before)
    else:
        return None
    if made is None:
        return None
    atomic.write_text(unit.folder / _FILE, json.dumps(asdict(made), indent=1) + "\n")
    return "goes on from its last checkpoint, and " + " and ".join(made.describe())


def _smaller(micro_batches: int, before: Fallbacks) -> Fallbacks | None:
    return replace(before, accumulate=micro_batches) if micro_batches <= _MOST_MICRO_BATCHES else None


def _without(image_ids: tuple[str, ...], unit: Unit, before: Fallbacks) -> Fallbacks | None:
    corrupt = sorted({*before.corrupt, *image_ids})
    most = unit.config.fault_tolerance.max_corrupt_images
    return replace(before, corrupt=tuple(corrupt)) if len(corrupt) <= most else None

"""The epochs of a fold: ``metrics.jsonl`` in its folder, a JSON object per epoch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from melanoma_dist.errors import DataError
from melanoma_dist.storage import atomic
from melanoma_dist.storage.untrusted import parse_json, read_text

if TYPE_CHECKING:
    from pydantic import TypeAdapter

_FILE = "metrics.jsonl"


@dataclass(frozen=True)
class EpochRecord:
    """One validated epoch of a fold."""

    epoch: int  # from 1
    train_loss: float  # mean over the steps that were not skipped
    validation_loss: float  # the same loss, of the validation images
    gradient_norm: float  # before clipping; mean over the steps that were not skipped
    learning_rate: float  # of the last step, for the trunk
    images_per_s: float  # of all ranks together
    wait_share: float  # of the training time, spent waiting for input, 0 to 1
    seconds: float  # training and validation
    devices: int  # GPUs, or CPU cores
    device: str  # "GPU" or "CPU core"
    skipped_steps: int  # whose gradient was not finite
    accumulate: int  # micro-batches per step and rank
    corrupt_images: int  # that the fold does not train on
    score_name: str  # of the score that the task watches, such as AUC
    score: float  # the higher the better
    best_score: float  # up to this epoch, among those that counted as a gain
    best_epoch: int  # from 1
    validation: Mapping[str, object]  # the task's metrics, plain values
    cuda_graph: bool = False  # whether its last step was replayed from a CUDA graph


def write_epochs(fold: Path, epochs: Iterable[EpochRecord]) -> None:
    """Write all epochs of a fold's folder at once: a resumed fold leaves neither gaps nor duplicates."""
    atomic.write_text(fold / _FILE, "".join(json.dumps(asdict(epoch)) + "\n" for epoch in epochs))


def read_epochs(fold: Path) -> list[EpochRecord]:
    """Read the epochs of a fold's folder, at least one. Raises DataError for a missing or corrupt file."""
    path = fold / _FILE
    try:
        epochs = [_read_line(line) for line in read_text(path).splitlines()]
        if not epochs:
            raise ValueError("it is empty")
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: does not hold the epochs of its fold ({error}). Delete {path.parent} to train the fold again."
        ) from error
    return epochs


def has_epochs(fold: Path) -> bool:
    """Whether a fold's folder has a file of epochs."""
    return (fold / _FILE).is_file()


def _read_line(line: str) -> EpochRecord:
    from pydantic import ValidationError

    parse_json(line)  # refuses what pydantic would accept: NaN, numbers of more than 64 bits, deep nesting
    try:
        return _adapter().validate_json(line, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc'])) or 'a line'}: {first['msg']}") from error


@cache
def _adapter() -> TypeAdapter[EpochRecord]:
    from pydantic import TypeAdapter  # a tenth of a second, for those alone who read

    return TypeAdapter(EpochRecord)

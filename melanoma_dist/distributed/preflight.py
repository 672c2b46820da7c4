"""Whether there is the room that a training needs: asked before anything is written or started.

Asked for is what it will take at least, so that nothing is refused that would have ended well.
"""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from melanoma_dist.config.run import RunConfig
from melanoma_dist.errors import ConfigError

if TYPE_CHECKING:  # PyTorch takes seconds to load
    import torch
    from torch import nn

_SHARED = Path("/dev/shm")  # noqa: S108  # nosec B108  # where NCCL puts its buffers, and not we
_PER_RANK = 32 * 2**20  # bytes of it for each rank that exchanges gradients with others
_TEMPORARY = 256 * 2**20  # bytes for Ray's logs, and for its object store where shared memory is small
_LONGEST = 24  # characters: Ray puts sockets below the temporary folder, whose paths have at most 107


@dataclass(frozen=True)
class ModelSize:
    """Bytes of a model."""

    state: int
    """Parameters and buffers."""
    parameters: int

    @classmethod
    def of(cls, model: nn.Module) -> ModelSize:
        """Of a model that was built."""
        return cls(_bytes_of(model.state_dict().values()), _bytes_of(model.parameters()))


def run_bytes(config: RunConfig, model: ModelSize) -> int:
    """Bytes that the folds of a run leave at least: checkpoints to go on from, the best epoch's weights, the model."""
    averages = 2 if config.optimizer.ema_decay else 1
    moments = 1 if config.optimizer.optimizer == "sgd" else 2
    head_alone = config.optimizer.freeze_epochs == config.schedule.epochs
    checkpoint = averages * model.state + (0 if head_alone else moments * model.parameters)
    kept = min(2, config.schedule.epochs)
    return config.repeats * config.data.folds * (kept * checkpoint + 2 * model.state)


def check_room(config: RunConfig, model: ModelSize, folder: Path) -> None:
    """Raise ConfigError unless what a run has still to write fits into what is free around ``folder``, its own."""
    more = run_bytes(config, model) - _bytes_in(folder)
    free = _free(folder)
    if more > free:
        rule = f"the run will write at least {_size(more)} more there, and {_size(free)} are free"
        raise ConfigError.of("runs", config.runs, rule, "Make room, or name a folder on a larger disk.")


def temporary_base() -> str:
    """The folder in which Ray's temporary one is made: the user's choice, unless sockets below it would not open."""
    base = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    return base if len(base) <= _LONGEST else os.sep + "tmp"


def check_temporary() -> None:
    """Raise ConfigError unless there is room for the temporary files of a private cluster."""
    base = temporary_base()
    free = _free(Path(base))
    if free < _TEMPORARY:
        raise ConfigError(
            f"TMPDIR {base}: Ray needs {_size(_TEMPORARY)} for temporary files, and {_size(free)} are free there. "
            "Make room, or name another folder with TMPDIR."
        )


def check_shared_memory(ranks: int) -> None:
    """Raise ConfigError unless NCCL finds room for ``ranks`` that train together: without, they die of a bus error."""
    needed, free = ranks * _PER_RANK, _free(_SHARED)
    if free < needed:
        raise ConfigError(
            f"{_SHARED}: {ranks} ranks that train together need {_size(needed)} of shared memory, and {_size(free)} "
            "are free. In Docker: `docker run --shm-size=1g`. Or let each fold have one GPU: --gpus-per-unit 1."
        )


def _bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # another command works there, and is met later
            total += path.lstat().st_size
    return total


def _free(folder: Path) -> float:
    """Bytes that are free where a folder is or will be made; infinity where nobody tells: some mounts say 0 of 0."""
    try:
        standing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        usage = shutil.disk_usage(standing)
    except OSError:  # whoever writes there says why not
        return math.inf
    return usage.free if usage.total else math.inf


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"

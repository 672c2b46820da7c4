"""Checks before a training writes or starts anything: of flags without heavy imports, of disk space, of shared memory.

They require the least that a training needs, so that no training is refused that would have succeeded.
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

from melanoma_dist import console
from melanoma_dist.config.hardware import HardwareConfig
from melanoma_dist.config.places import SUMMARY, check_data, check_writable, find_data
from melanoma_dist.config.region import check_lesions
from melanoma_dist.config.rules import check_together
from melanoma_dist.config.run import RunConfig, with_values
from melanoma_dist.distributed.gpus import check_gpus, count_gpus
from melanoma_dist.errors import ConfigError
from melanoma_dist.models.names import check_name

if TYPE_CHECKING:  # PyTorch takes seconds to load
    import torch
    from torch import nn

_SHARED = Path("/dev/shm")  # noqa: S108  # nosec B108  # for the buffers of NCCL
_PER_RANK = 32 * 2**20  # bytes of shared memory for a rank that exchanges gradients
_TEMPORARY = 256 * 2**20  # bytes for Ray's logs, and for its object store if shared memory is small
_MAX_LENGTH = 24  # characters: Ray's sockets are below the temporary folder, and their paths have at most 107


@dataclass(frozen=True)
class ModelSize:
    """Bytes of a model."""

    state: int
    """Parameters and buffers."""
    parameters: int

    @classmethod
    def of(cls, model: nn.Module) -> ModelSize:
        """Measure a model."""
        return cls(_bytes_of(model.state_dict().values()), _bytes_of(model.parameters()))


def settle_flags(config: RunConfig) -> RunConfig:
    """Fill in the data set if no flag names it, and the CPU for the demo on a machine without a GPU.

    A real data set without a GPU is refused later: on the CPU it would take weeks.
    """
    hardware, data = config.hardware, config.data.data or find_data()
    undecided = (hardware.gpus, hardware.gpus_per_unit, hardware.address) == (None, None, None)
    if data == "demo" and undecided and count_gpus() == 0:
        console.info("There is no GPU here: the demo trains on the CPU (--gpus 0).")
        return with_values(config, {"data.data": data, "hardware.gpus": 0})
    return with_values(config, {"data.data": data})


def check_flags(config: RunConfig) -> None:
    """Raise ConfigError, with every reason, for a training that cannot start. Loads neither PyTorch nor pandas."""
    data, model = config.data.data or "", config.model
    if _may_be_finished(config):  # a finished run shows its results without a GPU, and from a folder that is closed
        check_data(data)
        return
    check_together(
        lambda: check_data(data),
        lambda: check_lesions(config.region),
        lambda: check_writable("runs", config.runs),
        lambda: check_name(model.backbone, model.weights),
        lambda: check_gpus_here(config.hardware),
    )


def check_gpus_here(hardware: HardwareConfig) -> None:
    """Raise ConfigError if this machine surely has too few GPUs. With --address, the cluster is checked instead."""
    available = count_gpus() if hardware.address is None else None
    if available is not None:
        check_gpus(hardware.gpus, available)


def _may_be_finished(config: RunConfig) -> bool:
    """Whether a finished run has this name, or is of this backbone; or may come from a mirror."""
    pattern = config.name or f"*{config.model.backbone.replace('/', '_')}-*"
    return config.mirror is not None or any(config.runs.glob(f"{pattern}/{SUMMARY}"))


def run_bytes(config: RunConfig, model: ModelSize) -> int:
    """The least bytes that the folds of a run write: two checkpoints, the best epoch's weights, the exported model."""
    averages = 2 if config.optimizer.ema_decay else 1
    moments = 1 if config.optimizer.optimizer == "sgd" else 2
    head_alone = config.optimizer.freeze_epochs == config.schedule.epochs
    checkpoint = averages * model.state + (0 if head_alone else moments * model.parameters)
    checkpoints = min(2, config.schedule.epochs)
    return config.repeats * config.data.folds * (checkpoints * checkpoint + 2 * model.state)


def check_room(config: RunConfig, model: ModelSize, folder: Path) -> None:
    """Raise ConfigError unless the disk has room for what the run in ``folder`` still has to write."""
    more = run_bytes(config, model) - _bytes_in(folder)
    free = _free(folder)
    if more > free:
        rule = f"the run writes at least {console.size(more)} more there, and {console.size(free)} are free"
        raise ConfigError.of("runs", config.runs, rule, "Make room, or give a folder on a larger disk.")


def temporary_base() -> str:
    """The parent of Ray's temporary folder: the user's choice, unless paths of sockets below it would be too long."""
    base = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    return base if len(base) <= _MAX_LENGTH else os.sep + "tmp"


def check_temporary() -> None:
    """Raise ConfigError unless there is room for the temporary files of a private cluster."""
    base = temporary_base()
    free = _free(Path(base))
    if free < _TEMPORARY:
        raise ConfigError(
            f"TMPDIR {base}: Ray needs {console.size(_TEMPORARY)} for temporary files, and {console.size(free)} are "
            "free there. Make room, or set TMPDIR to another folder."
        )


def check_shared_memory(ranks: int) -> None:
    """Raise ConfigError unless NCCL has enough for ``ranks`` ranks. Otherwise they would die of a bus error."""
    needed, free = ranks * _PER_RANK, _free(_SHARED)
    if free < needed:
        raise ConfigError(
            f"{_SHARED}: {ranks} ranks that train together need {console.size(needed)} of shared memory, and "
            f"{console.size(free)} are free. In Docker: `docker run --shm-size=1g`. "
            "Or give each fold one GPU: --gpus-per-unit 1."
        )


def _bytes_of(tensors: Iterable[torch.Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _bytes_in(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with suppress(OSError):  # another command removed it; its lock is checked later
            total += path.lstat().st_size
    return total


def _free(folder: Path) -> float:
    """Free bytes on the disk of a folder that may not exist yet; infinity if unknown: some mounts report 0 of 0."""
    try:
        existing = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        usage = shutil.disk_usage(existing)
    except OSError:  # the first writer reports it better
        return math.inf
    return usage.free if usage.total else math.inf

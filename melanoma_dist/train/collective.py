"""What ranks tell each other, beside the gradients that DistributedDataParallel averages.

Every function also works without a process group, as a world of one.
"""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.distributed as dist
from torch import nn

from melanoma_dist.world import World

T = TypeVar("T")


def gather(array: npt.NDArray[Any], world: World) -> npt.NDArray[Any]:
    """Concatenate an array [m, ...] of equal shape on every rank, in order of rank, on every rank."""
    if world.size == 1:
        return array
    mine = torch.from_numpy(np.ascontiguousarray(array)).to(world.device)
    parts = [torch.empty_like(mine) for _ in range(world.size)]
    dist.all_gather(parts, mine)
    return torch.cat(parts).cpu().numpy()


def sum_over_ranks(value: float, world: World) -> float:
    """The sum of a number over all ranks."""
    if world.size == 1:
        return value
    tensor = torch.tensor(value, dtype=torch.float64, device=world.device)
    dist.all_reduce(tensor)
    return float(tensor)


def gather_objects(value: T, world: World) -> list[T]:
    """Every rank's value (plain types and tensors on the CPU), in order of rank, on every rank."""
    if world.size == 1:
        return [value]
    box: list[Any] = [None] * world.size
    dist.all_gather_object(box, value)
    return box


def broadcast_value(value: T, world: World) -> T:
    """The main rank's value (plain types), on every rank."""
    if world.size == 1:
        return value
    box: list[Any] = [value]
    dist.broadcast_object_list(box, src=0, device=torch.device(world.device))
    return box[0]  # type: ignore[no-any-return]


def broadcast_buffers(model: nn.Module, world: World) -> None:
    """Give every rank the main rank's buffers: DistributedDataParallel hands out parameters alone."""
    if world.size == 1:
        return
    for buffer in model.buffers():
        dist.broadcast(buffer, src=0)


def average_buffers(model: nn.Module, world: World) -> None:
    """Replace every floating buffer (running statistics) by its mean over the ranks, so that all validate one model."""
    if world.size == 1:
        return
    for buffer in model.buffers():
        if buffer.is_floating_point():
            dist.all_reduce(buffer)
            buffer /= world.size

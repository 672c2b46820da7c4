"""Collectives between the ranks of a unit, beside the gradients that DistributedDataParallel averages.

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
Dtype = TypeVar("Dtype", bound=np.generic)


def gather(array: npt.NDArray[Dtype], world: World) -> npt.NDArray[Dtype]:
    """Concatenate the arrays [m, ...] of all ranks, equal in shape, in order of rank; on every rank."""
    if world.size == 1:
        return array
    local = torch.from_numpy(np.ascontiguousarray(array)).to(world.device)
    parts = [torch.empty_like(local) for _ in range(world.size)]
    dist.all_gather(parts, local)
    return torch.cat(parts).cpu().numpy()


def sum_over_ranks(value: float, world: World) -> float:
    """Sum a number over all ranks, in float64."""
    if world.size == 1:
        return value
    tensor = torch.tensor(value, dtype=torch.float64, device=world.device)
    dist.all_reduce(tensor)
    return float(tensor)


def gather_objects(value: T, world: World) -> list[T]:
    """Gather the value of every rank (plain types and CPU tensors), in order of rank; on every rank."""
    if world.size == 1:
        return [value]
    values: list[Any] = [None] * world.size
    dist.all_gather_object(values, value)
    return values


def broadcast_value(value: T, world: World) -> T:
    """Return the main rank's value (plain types) on every rank."""
    if world.size == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values, src=0, device=torch.device(world.device))
    return values[0]


def broadcast_buffers(model: nn.Module, world: World) -> None:
    """Give every rank the main rank's buffers: DistributedDataParallel broadcasts parameters alone."""
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

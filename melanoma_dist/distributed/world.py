"""The rank of this process, read from PyTorch in one place."""

from __future__ import annotations

import torch.distributed as dist

from melanoma_dist.train.device import configure_device
from melanoma_dist.world import World


def detect(gpu: int | None, threads: int) -> World:
    """The world of this process, on GPU ``gpu`` or the CPU. Makes the GPU current, sets threads and determinism."""
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    configure_device(gpu, threads)
    return World(rank, size, gpu, threads)

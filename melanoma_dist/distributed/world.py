"""The only reader of ranks: what Ray Train and PyTorch say of this process, as a ``World``."""

from __future__ import annotations

import torch.distributed as dist

from melanoma_dist.train.device import configure_device
from melanoma_dist.world import World


def detect(gpu: int | None, threads: int) -> World:
    """This process's world, on GPU ``gpu`` or the CPU. Makes the GPU current and sets threads and determinism."""
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    configure_device(gpu, threads)
    return World(rank, size, gpu, threads)

"""The only reader of ranks: what Ray Train and PyTorch say of this process, as a ``World``."""

from __future__ import annotations

import torch
import torch.distributed as dist

from melanoma_dist.world import World


def detect(gpu: bool, threads: int) -> World:
    """This process's world. Sets up its device, threads and determinism on the way."""
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    if gpu:
        # Ray shows a rank its own GPUs only, and makes one of them current.
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
        return World(rank, size, torch.cuda.current_device(), threads)
    torch.set_num_threads(threads)
    return World(rank, size, None, threads)

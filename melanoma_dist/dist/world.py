"""The only reader of ranks: what Ray Train and PyTorch say of this process, as a ``World``."""

from __future__ import annotations

import torch
import torch.distributed as dist

from melanoma_dist.world import World


def detect(gpu: int | None, threads: int) -> World:
    """This process's world, on GPU ``gpu`` or the CPU. Makes the GPU current and sets threads and determinism."""
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    if gpu is None:
        torch.set_num_threads(threads)
    else:
        torch.cuda.set_device(gpu)
        torch.backends.cudnn.benchmark = False
        torch.use_deterministic_algorithms(True, warn_only=True)
        # Nothing here reads memory it did not write, and filling it costs time.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    return World(rank, size, gpu, threads)

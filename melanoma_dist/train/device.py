"""What a process sets once of the device it computes on, so that the same command computes the same."""

from __future__ import annotations

import torch


def settle(gpu: int | None, threads: int) -> None:
    """Make a GPU current and its algorithms deterministic; without one, compute on ``threads`` threads."""
    if gpu is None:
        torch.set_num_threads(threads)
        return
    torch.cuda.set_device(gpu)
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Nothing here reads memory it did not write, and filling it costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]

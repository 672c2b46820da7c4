"""The settings of a device."""

from __future__ import annotations

import resource

import torch

from melanoma_dist.train.device import configure_device


def test_freed_memory_of_a_large_tensor_is_used_again() -> None:
    """Not fetched from the system anew, page by page."""
    configure_device(None, torch.get_num_threads())

    def missing_pages() -> int:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(2**24)  # 64 MiB
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    *_, last = [missing_pages() for _ in range(6)]  # the first ones find no place among what is free
    assert last < 1000  # of 16,384

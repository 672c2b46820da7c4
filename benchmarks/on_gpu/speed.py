"""Images per second: the device is waited for at both ends, and speeds are medians of the slices of a measurement."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from on_gpu.settings import Row, Settings

Step = Callable[[], int]
"""One step; how many images it took."""
_WARM_UP_STEPS = 5
_SLICES = 5


def measured(figure: str, step: Step, settings: Settings, remark: str) -> Row:
    """Images/s of a step, and the most memory it took."""
    on_gpu = settings.gpu is not None
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    speed = images_per_s(step, settings)
    memory = f", peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if on_gpu else ""
    return Row(figure, f"{speed:.1f} images/s", remark + memory)


def images_per_s(step: Step, settings: Settings) -> float:
    """Median over slices of ``settings.seconds``, after a warm-up."""
    device = torch.device(settings.device)
    on_gpu = settings.gpu is not None
    for _ in range(_WARM_UP_STEPS if on_gpu else 1):
        step()
    slice_s = settings.seconds / _SLICES
    # As many steps as fill a slice, determined beforehand: to look at the clock after each would mean to wait for each.
    steps = max(1, round(slice_s / _timed(step, _WARM_UP_STEPS, device)[0] * _WARM_UP_STEPS)) if on_gpu else 1
    slices = [_timed(step, steps, device) for _ in range(_SLICES if on_gpu else 1)]
    return statistics.median(images / seconds for seconds, images in slices)


def _timed(step: Step, steps: int, device: torch.device) -> tuple[float, int]:
    """How long some steps take, and how many images they are."""
    wait(device)
    start = time.perf_counter()
    images = sum(step() for _ in range(steps))
    wait(device)
    return time.perf_counter() - start, images


def wait(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()

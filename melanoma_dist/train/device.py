"""Settings of the device, made once in a process, so that the same command computes the same numbers."""

from __future__ import annotations

import gc
import importlib
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

import torch
import torch.distributed as dist

from melanoma_dist.config.hardware import HardwareConfig
from melanoma_dist.input.gpu_decoder import gpu_decoder
from melanoma_dist.input.pixels import AUGMENTATION
from melanoma_dist.world import World

# The loop with all that it imports, the task, and what PyTorch imports when an optimizer first steps.
_LOADED_LATE = ("melanoma_dist.train.loop", "melanoma_dist.train.classification", "torch._dynamo")


class GpuLoad(NamedTuple):
    """How much of a GPU a rank uses."""

    memory_gb: float
    """The most that PyTorch has reserved so far."""
    utilization: float | None
    """Share of the last moments in which the GPU computed, 0 to 1; None where the driver does not tell."""


def gpu_load(gpu: int | None) -> GpuLoad | None:
    """Measure the load of a GPU, without waiting for it; None without one."""
    if gpu is None:
        return None
    utilization = None
    with suppress(Exception):  # a slice of a GPU (MIG) has none; NVML's classes exist only where NVML is installed
        utilization = torch.cuda.utilization(gpu) / 100
    return GpuLoad(torch.cuda.max_memory_reserved(gpu) / 1e9, utilization)


def configure_device(gpu: int | None, threads: int) -> None:
    """Make a GPU current and its algorithms deterministic; without one, compute on ``threads`` threads."""
    if gpu is None:
        torch.set_num_threads(threads)
        return
    torch.cuda.set_device(gpu)
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
    # Nothing here reads memory it did not write, and filling it costs time.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def arithmetic(hardware: HardwareConfig, world: World) -> dict[str, object]:
    """What decides how numbers are rounded, by name. Resumed with other values, a training ends differently."""
    compiled = "by block" if hardware.compile else False
    if world.gpu is None:
        computed = {"device": "CPU", "decode_threads": world.threads, "compile": compiled}
        return {**computed, "augmentation": AUGMENTATION}
    # Replayed from a CUDA graph, steps have the same bits (train.step_graph proves it): that is not arithmetic.
    names = ("amp", "channels_last", "sync_batchnorm")
    decoder = gpu_decoder(world.gpu)
    values = {name: getattr(hardware, name) for name in names}
    computed = {"device": "GPU", "rates": "float32", "compile": compiled, **values}
    return {**computed, "augmentation": AUGMENTATION, "jpeg_decoder": decoder.name, "nvjpeg": decoder.nvjpeg}


def changed_arithmetic(before: Mapping[str, object], now: Mapping[str, object], resized: bool) -> list[str]:
    """Describe what differs between two results of ``arithmetic``; ``resized``: on another number of ranks."""
    # Other ranks share the cores differently, and sum in another order anyway.
    free = {"decode_threads"} if resized else set()
    return [
        f"{key} {before.get(key)} then, {value} now"
        for key, value in now.items()
        if key not in free and before.get(key) != value
    ]


def set_seed(seed: int, gpu: int | None) -> None:
    """Seed the generators that a rank draws from. ``torch.manual_seed`` visits all kinds of devices."""
    torch.default_generator.manual_seed(seed)
    if gpu is not None:
        torch.cuda.manual_seed(seed)


def warm_up(gpu: int | None) -> None:
    """Load what every training loads later, and create the context of a GPU, while nothing waits for it."""
    for module in _LOADED_LATE:
        importlib.import_module(module)
    if gpu is not None:
        torch.cuda.set_device(gpu)
        torch.zeros(1, device="cuda")


def release(gpu: int | None) -> None:
    """Free what a unit leaves in its process, so that the next unit there finds what it finds in a new process.

    That is cached memory of the GPU and its peak, and compiled code: torch.compile compiles a function a few times in a
    process, and then computes it eagerly, which rounds differently.
    """
    gc.collect()
    if "torch._dynamo" in sys.modules:
        torch.compiler.reset()
    if gpu is not None:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(gpu)


def detect(gpu: int | None, threads: int) -> World:
    """The world of this process, on GPU ``gpu`` or the CPU. Makes the GPU current, sets threads and determinism."""
    rank, size = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    configure_device(gpu, threads)
    return World(rank, size, gpu, threads)

"""How many GPUs this machine has, asked without PyTorch, and the rule for --gpus."""

from __future__ import annotations

import ctypes
import os

from melanoma_dist.errors import ConfigError

_NVML, _CUDA = "libnvidia-ml.so.1", "libcuda.so.1"


def count_gpus() -> int | None:
    """The most GPUs that a process may see here, by NVIDIA's driver; None if only CUDA itself can tell.

    NVML is asked and not CUDA: it takes milliseconds, and leaves the process able to fork. The count respects
    CUDA_VISIBLE_DEVICES. PyTorch counts again before a training starts.
    """
    installed = _installed()
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if not installed or chosen is None:
        return installed
    names = [name.strip() for name in chosen.split(",")]
    ends = [at for at, name in enumerate(names) if name in ("", "-1")]  # CUDA ignores what follows an invalid name
    return min([len(names), *ends]) if "MIG" in chosen else min([installed, len(names), *ends])


def _installed() -> int | None:
    try:
        nvml = ctypes.CDLL(_NVML)
    except OSError:
        return None if _loads(_CUDA) else 0
    count = ctypes.c_uint(0)
    if nvml.nvmlInit_v2() or nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)):  # both return 0 for success
        return None
    nvml.nvmlShutdown()
    return count.value


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def check_gpus(requested: int | None, available: int) -> None:
    """Raise ConfigError unless enough GPUs are available. None requests all of them, and at least one."""
    if requested is None and available == 0:
        raise ConfigError("--gpus: there is no GPU here. Use --gpus 0 to train on the CPU.")
    if requested is not None and requested > available:
        remedy = f"Use --gpus {available}." if available else "Use --gpus 0 to train on the CPU."
        only = f"there {'is' if available == 1 else 'are'} only {available} GPU{'' if available == 1 else 's'}"
        raise ConfigError.of("gpus", requested, only if available else "there is no GPU here", remedy)

"""The GPUs of this machine, counted without PyTorch, the rule for --gpus, and the GPU that Ray gives a process."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Sequence

from melanoma_dist.errors import ClusterError, ConfigError

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


def own_gpu() -> int:
    """The index, among the GPUs that this process sees, of the one that Ray gives this actor.

    Ray hides all others, unless its settings say otherwise. Raises ClusterError if PyTorch does not see the GPU: a fold
    that was to train on a GPU must not train elsewhere.
    """
    import ray
    import torch

    names = ray.get_runtime_context().get_accelerator_ids().get("GPU", [])
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    position, count = index_of(names, visible), torch.cuda.device_count()
    if position is None or position >= count:
        raise ClusterError(
            f"Ray gives this fold GPU {', '.join(names) or '(none)'}, and PyTorch sees {count} GPUs "
            f"(CUDA_VISIBLE_DEVICES={visible!r}). Check with `nvidia-smi` on the node, or use --gpus 0."
        )
    return position


def index_of(names: Sequence[str], visible: str) -> int | None:
    """The index of the one GPU in ``names`` among those of ``CUDA_VISIBLE_DEVICES``; None if it is not among them."""
    if len(names) != 1:
        return None
    listed = [name.strip() for name in visible.split(",")] if visible else []
    if names[0] in listed:
        return listed.index(names[0])
    return int(names[0]) if not listed and names[0].isdecimal() else None

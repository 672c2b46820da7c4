"""Counts the kernels that a step would launch on a GPU, without one: ATen operations as they reach the device.

An operation counts as one launch, with these exceptions: views and allocations launch nothing, the backward of a
convolution launches two, a concatenation one for each 128 tensors, and multi-tensor operations as many as PyTorch's
``MultiTensorApply.cuh`` needs for their sizes (limits of CUDA 13). The norm of many tensors needs two more.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

_CHUNK, _MOST_BLOCKS = 65536, 2240
_MOST_TENSORS = {1: 770, 2: 448, 3: 336, 4: 252, 5: 210}  # by the number of lists
_CONCATENATED = 128
_ALLOCATIONS = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"}
_VIEWS = {"_unsafe_view", "_reshape_alias", "lift_fresh", "split", "split_with_sizes", "unbind", "alias"}
_WAITS = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal"}
_DEPTHS = {
    "_fused_adam_": 4, "_fused_adamw_": 4, "_fused_sgd_": 3, "_foreach_copy_": 2, "_foreach_lerp_": 2,
    "_foreach_sub_": 2, "_foreach_add_": 1, "_foreach_mul_": 1, "_foreach_norm": 1,
}  # fmt: skip


class LaunchCounter(TorchDispatchMode):
    """Counts within its context. ``by_operation`` has the launches by name, ``waits`` what reads the device."""

    def __init__(self) -> None:
        super().__init__()
        self.by_operation: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    @property
    def total(self) -> int:
        return self.by_operation.total()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in _WAITS:
            self.waits[name] += 1
        elif not (func.is_view or name in _VIEWS | _ALLOCATIONS):
            self.by_operation[name] += launches(name, args)
        return func(*args, **(kwargs or {}))


def launches(name: str, args: Any) -> int:
    """The kernels of one operation."""
    if name == "convolution_backward":
        return 2
    if name == "cat":
        return -(-len(args[0]) // _CONCATENATED)
    if name.startswith(("_foreach_", "_fused_")):
        extra = 2 if name == "_foreach_norm" else 0  # zeros before, the sums of the chunks after
        return multi_tensor_launches([tensor.numel() for tensor in args[0]], _DEPTHS[name]) + extra
    return 1


def multi_tensor_launches(sizes: list[int], depth: int) -> int:
    """As ``multi_tensor_apply`` fills its launches: with blocks of 65,536 elements, of so many tensors at most."""
    count = blocks = tensors = 0
    for size in filter(None, sizes):
        tensors += 1
        chunks = -(-size // _CHUNK)
        for chunk in range(chunks):
            blocks += 1
            last = chunk == chunks - 1
            if blocks == _MOST_BLOCKS or (last and tensors == _MOST_TENSORS[depth]):
                count, blocks, tensors = count + 1, 0, 0 if last else 1
    return count + (blocks > 0)

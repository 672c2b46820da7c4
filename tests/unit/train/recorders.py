"""Stand-ins for CUDA graphs: a tape of the operations on tensors, on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from melanoma_dist.train.step_graph import Replay


class Tape(TorchDispatchMode):
    """Keeps each operation with the tensors that it reads and writes, and all numbers as they were.

    Like a CUDA graph, it knows nothing of Python: a number that changes from step to step is repeated unchanged, and a
    tensor that is replaced is not followed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._operations: list[tuple[Any, Any, Any, list[Any]]] = []
        self._inputs: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self._created: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        for tensor in _tensors((args, kwargs)):
            if id(tensor) not in self._created:
                self._inputs.setdefault(id(tensor), (tensor, tensor.detach().clone()))
        result = func(*args, **kwargs)
        outputs = _tensors(result)
        self._operations.append((func, args, kwargs, outputs))
        self._created |= {id(tensor) for tensor in outputs} - set(self._inputs)
        return result

    def undo(self) -> None:
        """Give all tensors from outside the values that they had: recording computes nothing."""
        with torch.no_grad():
            for tensor, value in self._inputs.values():
                tensor.copy_(value)

    def replay(self) -> None:
        with torch.no_grad():
            for func, args, kwargs, outputs in self._operations:
                for old, new in zip(outputs, _tensors(func(*args, **kwargs)), strict=True):
                    if old.data_ptr() != new.data_ptr():
                        old.copy_(new)


class TapeRecorder:
    """Records honestly."""

    def __init__(self) -> None:
        self.records = 0

    def warm_up(self, function: Callable[[], None]) -> None:
        function()

    def record(self, function: Callable[[], None]) -> Replay:
        self.records += 1
        tape = Tape()
        with tape:
            function()
        tape.undo()
        return tape.replay


class LyingRecorder(TapeRecorder):
    """Replays something else: one bit of one tensor."""

    def __init__(self, tensor: Callable[[], torch.Tensor]) -> None:
        super().__init__()
        self._tensor = tensor

    def record(self, function: Callable[[], None]) -> Replay:
        replay = super().record(function)

        def lie() -> None:
            replay()
            with torch.no_grad():
                self._tensor().view(-1)[:1].view(torch.int32).bitwise_xor_(1)

        return lie


class FailingRecorder(TapeRecorder):
    """Fails in the middle of recording, as a kernel that waits for the device makes it: then its end fails too."""

    def record(self, function: Callable[[], None]) -> Replay:
        try:
            super().record(function)
            raise RuntimeError("operation not permitted when stream is capturing\nmore of it")
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")


def _tensors(tree: Any) -> list[Any]:
    return [each for each in tree_flatten(tree)[0] if isinstance(each, torch.Tensor)]

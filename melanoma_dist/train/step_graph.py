"""Replays a recorded step instead of computing it, after a proof that both give the same bits.

A step of a deep network is thousands of kernels. A fast GPU computes them quicker than Python launches them one by one;
recorded as a CUDA graph, they are launched together. A graph replays the same kernels on the same memory. Whatever
changes from step to step must therefore lie in tensors that stay where they are: inputs, targets, known labels, step
number and rate.

The proof: the first step after a start, and after the trunk thaws, is taken both ways from the same state. The graph
is used only if weights, moments, statistics and sums have the same bits. Otherwise, and where recording fails, the
training continues one kernel at a time and says so.

This module knows no CUDA: ``train.cuda_graph`` has the recorder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

import torch

from melanoma_dist.train.background import copy_to_cpu

Replay = Callable[[], None]
"""Does what was recorded, again."""
Inputs = tuple[torch.Tensor, ...]
"""What a model takes: images [b, 3, S, S], and metadata [b, F] if it was built for them."""
Take = Callable[[Inputs, torch.Tensor], None]
"""Take a step on inputs and targets [b, L]."""
_NAMED = 3  # tensors that a message about a difference names


class Recorder(Protocol):
    """Records the device's work."""

    def warm_up(self, function: Callable[[], None]) -> None:
        """Run a function as ``record`` will: libraries set themselves up in the first run."""

    def record(self, function: Callable[[], None]) -> Replay:
        """Record what a function lets the device do, without doing it. Raises RuntimeError if that is impossible."""


class StepGraph:
    """Takes steps, replayed from a record where that is proven."""

    def __init__(
        self,
        recorder: Recorder,
        take: Take,
        state: Callable[[], Mapping[str, torch.Tensor]],
        optimizer: torch.optim.Optimizer,
        note: Callable[[str], object],
    ) -> None:
        """``state`` returns all tensors that ``take`` changes, by name. ``note`` takes the reason not to replay."""
        self._recorder, self._take, self._state, self._optimizer, self._note = recorder, take, state, optimizer, note
        self._replay: Replay | None = None
        self._inputs: Inputs = ()
        self._targets = torch.empty(0)
        self._refused = False

    @property
    def replays(self) -> bool:
        """Whether steps are replayed."""
        return self._replay is not None

    def drop(self) -> None:
        """Drop the record: tensors were replaced, or others learn. The next step records and proves anew."""
        self._replay = None
        self._inputs, self._targets = (), torch.empty(0)

    def step(self, inputs: Inputs, targets: torch.Tensor, seed: Callable[[], None]) -> None:
        """Take a step. ``seed`` sets the random seeds of the step."""
        if self._replay is None and not self._refused:
            self._prove(inputs, targets, seed)
        elif self._replay is None or _layout(inputs) != _layout(self._inputs):
            seed()  # in another layout, other kernels run, with other bits
            self._take(inputs, targets)
        else:
            for own, values in zip(self._inputs, inputs, strict=True):
                own.copy_(values)
            self._targets.copy_(targets)
            seed()  # a graph reads seeds from memory when it is replayed
            self._replay()

    def _prove(self, inputs: Inputs, targets: torch.Tensor, seed: Callable[[], None]) -> None:
        """Take one step both ways, and choose the way of the next ones."""
        self._inputs, self._targets = tuple(each.clone() for each in inputs), targets.clone()
        before = copy_to_cpu(dict(self._state()))
        seed()
        self._recorder.warm_up(self._run)
        expected = copy_to_cpu(dict(self._state()))
        self._restore(before)
        try:
            replay = self._record()
            seed()
            replay()
            reason = _difference(expected, copy_to_cpu(dict(self._state())))
        except RuntimeError as error:  # also of a full memory: without a record, the step has just fitted
            reason = f"it could not be recorded: {_first_line(error)}"
        if reason is None:
            self._replay = replay
            return
        self.drop()
        self._restore(expected)
        self._refused = True
        self._note(f"uses no CUDA graph, and launches the kernels of a step one by one ({reason})")

    def _run(self) -> None:
        self._take(self._inputs, self._targets)

    def _record(self) -> Replay:
        """Record the step. PyTorch wants optimizers marked for it, and warns of marked ones elsewhere."""
        groups = [group for group in self._optimizer.param_groups if "capturable" in group]
        for group in groups:
            group["capturable"] = True
        try:
            return self._recorder.record(self._run)
        finally:
            for group in groups:
                group["capturable"] = False

    def _restore(self, values: Mapping[str, torch.Tensor]) -> None:
        """Restore copied tensors. Moments that did not exist then were zero."""
        with torch.no_grad():
            for name, tensor in self._state().items():
                if name in values:
                    tensor.copy_(values[name])
                else:
                    tensor.zero_()


def _layout(inputs: Inputs) -> list[tuple[torch.Size, tuple[int, ...]]]:
    return [(each.shape, each.stride()) for each in inputs]


def _first_line(error: BaseException) -> str:
    """The first line of the first error: the end of a capture that failed raises another one, which says nothing."""
    while error.__context__ is not None:
        error = error.__context__
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _difference(expected: Mapping[str, torch.Tensor], actual: Mapping[str, torch.Tensor]) -> str | None:
    """Describe what differs in any bit; None if nothing does."""
    names = [name for name in expected if _bytes(expected[name]) != _bytes(actual[name])]
    if not names:
        return None
    more = f" and {len(names) - _NAMED} others" if len(names) > _NAMED else ""
    return f"its bits are not those of the step itself: {', '.join(names[:_NAMED])}{more}"


def _bytes(tensor: torch.Tensor) -> bytes:
    return tensor.numpy().tobytes()  # bits: NaN equals NaN, and -0 is not 0

"""Writes beside the training: one at a time, in a thread, so that a step does not wait for a disk."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch


class Background:
    """Does one piece of work after the other."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="saving")
        self._work: Future[object] | None = None

    def start(self, work: Callable[[], object]) -> None:
        """Begin ``work``, after what was begun before. Raises what that raised."""
        self.wait()
        self._work = self._thread.submit(work)

    def busy(self) -> bool:
        """Whether something is at work. Raises what the last work raised, once it has ended."""
        if self._work is not None and self._work.done():
            self.wait()
        return self._work is not None

    def wait(self) -> None:
        """Wait for the end of what is at work. Raises what it raised."""
        work, self._work = self._work, None
        if work is not None:
            work.result()

    def close(self) -> None:
        """Wait for what is at work, whatever becomes of it."""
        self._thread.shutdown(wait=True)


def copy_to_cpu(value: Any) -> Any:
    """A nested value whose tensors, on the CPU, and containers stay what they are while the training goes on."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: copy_to_cpu(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(copy_to_cpu(each) for each in value)
    return value

"""Runs writes in a thread, one at a time, so that no training step waits for a disk."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch

Nested = TypeVar("Nested")


class Background:
    """A thread that runs one job after the other."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="saving")
        self._job: Future[object] | None = None

    def start(self, job: Callable[[], object]) -> None:
        """Start ``job`` after the one before it. Raises the error of that one."""
        self.wait()
        self._job = self._thread.submit(job)

    def busy(self) -> bool:
        """Tell whether a job is running. Raises the error of a job that ended since the last call."""
        if self._job is not None and self._job.done():
            self.wait()
        return self._job is not None

    def wait(self) -> None:
        """Wait for the end of the running job. Raises its error."""
        job, self._job = self._job, None
        if job is not None:
            job.result()

    def close(self) -> None:
        """Wait for the running job and end the thread. Errors of the job are dropped."""
        self._thread.shutdown(wait=True)


def copy_to_cpu(value: Nested) -> Nested:
    """Copy nested containers and their tensors to the CPU, so that training steps do not change them."""
    copy: Any = value
    if isinstance(value, torch.Tensor):
        copy = value.detach().to("cpu", copy=True)
    elif isinstance(value, dict):
        copy = {key: copy_to_cpu(each) for key, each in value.items()}
    elif isinstance(value, list | tuple):
        copy = type(value)(copy_to_cpu(each) for each in value)
    return copy  # type: ignore[no-any-return]

"""One thread owns the models and their graph, and predicts what waits in batches.

It never waits for a batch to fill: while it computes one, the next collects. So a single client waits for nothing,
and many clients share batches.
"""

from __future__ import annotations

import asyncio
import ctypes
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

from melanoma_dist.app.inspection import InspectedPhoto
from melanoma_dist.app.scoring import ScoredImage
from melanoma_dist.errors import MelanomaDistError

Result = TypeVar("Result")
Predict = Callable[[Sequence[InspectedPhoto]], list[ScoredImage]]
Observe = Callable[[int, float], None]

_M_ARENA_MAX = -8  # of glibc's malloc.h


class _Photo:
    """An image that waits."""

    def __init__(self, photo: InspectedPhoto) -> None:
        self.photo = photo
        self.future: Future[ScoredImage] = Future()


class _Task:
    """Other work with the models that waits."""

    def __init__(self, work: Callable[[], Any]) -> None:
        self.work = work
        self.future: Future[Any] = Future()

    def settle(self) -> None:
        """Do the work, unless its request was given up."""
        if self.future.set_running_or_notify_cancel():
            try:
                self.future.set_result(self.work())
            except Exception as error:
                self.future.set_exception(error)


_END = object()


def share_heap() -> None:
    """Let threads that start later allocate from the heap of the main thread. Without effect where there is no glibc.

    A heap of the engine's own gives its memory back after each batch and takes it again page by page: 35,000 page
    faults per image of three small models, a fifth of the time.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


class Engine:
    """Predicts images in batches."""

    def __init__(self, predict: Predict, batch_size: int, observe: Observe = lambda images, seconds: None) -> None:
        """``observe(images, seconds)`` is called after each batch, on the engine's thread."""
        self._predict, self._batch_size, self._observe = predict, batch_size, observe
        self._waiting: queue.SimpleQueue[_Photo | _Task | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="engine", daemon=True)
        self._thread.start()

    async def predict(self, photos: Sequence[InspectedPhoto]) -> list[ScoredImage]:
        """Predict photos. The answers do not depend on what else is in their batch. Raises MelanomaDistError."""
        jobs = [_Photo(photo) for photo in photos]
        for job in jobs:
            self._waiting.put(job)
        return list(await asyncio.gather(*(asyncio.wrap_future(job.future) for job in jobs)))

    async def run(self, work: Callable[[], Result]) -> Result:
        """Run other work with the models on their thread, between two batches."""
        task = _Task(work)
        self._waiting.put(task)
        result: Result = await asyncio.wrap_future(task.future)
        return result

    def close(self) -> None:
        """End after everything that waits was answered."""
        self._waiting.put(None)
        self._thread.join()

    def _work(self) -> None:
        while (item := self._waiting.get()) is not None:
            if isinstance(item, _Task):
                item.settle()
                continue
            batch, rest = self._collect(item)
            self._answer(batch)
            if isinstance(rest, _Task):
                rest.settle()
            elif rest is _END:
                return

    def _collect(self, first: _Photo) -> tuple[list[_Photo], object]:
        """The photos that wait, up to a batch, and what came after them that is no photo."""
        batch = [first]
        while len(batch) < self._batch_size:
            try:
                item = self._waiting.get_nowait()
            except queue.Empty:
                break
            if not isinstance(item, _Photo):
                return batch, _END if item is None else item
            batch.append(item)
        return batch, None

    def _answer(self, batch: list[_Photo]) -> None:
        # A request that timed out has cancelled its futures.
        batch = [job for job in batch if job.future.set_running_or_notify_cancel()]
        if not batch:
            return
        start = time.monotonic()
        try:
            answers = self._predict([job.photo for job in batch])
        except MelanomaDistError as error:
            self._answer_each(batch, error)
        except Exception as error:
            for job in batch:
                job.future.set_exception(error)
        else:
            for job, answer in zip(batch, answers, strict=True):
                job.future.set_result(answer)
        self._observe(len(batch), time.monotonic() - start)

    def _answer_each(self, batch: list[_Photo], error: MelanomaDistError) -> None:
        """Predict the images of a failed batch one by one, so that a bad one fails alone."""
        if len(batch) == 1:
            batch[0].future.set_exception(error)
            return
        for job in batch:
            try:
                [answer] = self._predict([job.photo])
            except Exception as own:
                job.future.set_exception(own)
            else:
                job.future.set_result(answer)

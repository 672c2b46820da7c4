"""Prepares images on all cores, in order, with few of them in memory at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess

from melanoma_dist.data.photo import Photo, PhotoJob, prepare_photo
from melanoma_dist.errors import DataError

_JOBS_PER_WORKER = 400
"""With fewer images than this, starting another worker process takes longer than preparing them."""
_BATCH = 8  # images sent to a worker together: sending one costs as much as decoding a small one
_AHEAD = 4  # batches waiting per worker


def prepare_photos(jobs: Sequence[PhotoJob]) -> Iterator[Photo]:
    """Prepare the images in the order of their jobs; a few stay in this process.

    Raises DataError if a worker is killed.
    """
    workers = min(len(os.sched_getaffinity(0)), len(jobs) // _JOBS_PER_WORKER)
    if workers < 2:
        yield from map(prepare_photo, jobs)
        return
    # Spawned, not forked: threads and libraries of the calling process may not survive a fork.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_end_with_parent)
    waiting: deque[Future[list[Photo]]] = deque()
    try:
        for start in range(0, len(jobs), _BATCH):
            waiting.append(_submit(pool, jobs[start : start + _BATCH]))
            if len(waiting) >= _AHEAD * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool as error:
        raise DataError(
            f"a process that decodes images was killed ({error}), usually because memory ran out. "
            "Run the same command again on a machine with more memory."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, jobs: Sequence[PhotoJob]) -> Future[list[Photo]]:
    """Submit a batch. A process that starts for it never sees the Ctrl-C of a terminal: its parent ends it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(_prepare_each, jobs)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    """Exit this worker when the preparation is killed; otherwise it would wait for work for ever."""
    if parent := multiprocessing.parent_process():
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _prepare_each(jobs: Sequence[PhotoJob]) -> list[Photo]:
    return [prepare_photo(job) for job in jobs]

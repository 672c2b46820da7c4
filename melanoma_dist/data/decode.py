"""Photographs prepared on all cores, in order, few of them in memory at a time."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.process import BaseProcess

from melanoma_dist.data.photo import Photo, PhotoJob, prepare_photo
from melanoma_dist.errors import DataError

_JOBS_PER_WORKER = 400
"""Fewer images than this are prepared sooner than another worker process starts."""
_AT_ONCE = 8  # images sent to a worker together: sending one costs as much as decoding a small one
_AHEAD = 4  # such parcels waiting per worker


def prepare_photos(jobs: Sequence[PhotoJob]) -> Iterator[Photo]:
    """The photographs in the order of their jobs. Raises DataError when a worker is killed."""
    workers = min(len(os.sched_getaffinity(0)), len(jobs) // _JOBS_PER_WORKER)
    if workers < 2:
        yield from map(prepare_photo, jobs)
        return
    # Spawned, not forked: the calling process may hold threads and libraries that do not survive a fork.
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), initializer=_end_with_parent)
    waiting: deque[Future[list[Photo]]] = deque()
    try:
        for start in range(0, len(jobs), _AT_ONCE):
            waiting.append(pool.submit(_prepare, jobs[start : start + _AT_ONCE]))
            if len(waiting) >= _AHEAD * workers:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    except BrokenProcessPool as error:
        raise DataError(
            f"a process that decodes images was killed ({error}), most often for want of memory. "
            "Give the same command again on a machine with more: it goes on where it was."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_parent() -> None:
    """End this worker when the preparation is killed: it would wait for work for ever."""
    if parent := multiprocessing.parent_process():
        threading.Thread(target=_end_after, args=(parent,), daemon=True).start()


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _prepare(jobs: Sequence[PhotoJob]) -> list[Photo]:
    return [prepare_photo(job) for job in jobs]

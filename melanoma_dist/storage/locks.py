"""Locks between processes: a second process is refused, or waits for its turn. The kernel frees a killed holder's lock.

They are ``flock`` on a folder or file, not the ``filelock`` package, which locks neither a folder itself nor anything
where its lock file cannot be created.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from melanoma_dist.errors import MelanomaDistError

LOCK = ".lock"  # the lock file of a folder that several machines share


@contextmanager
def lock_folder(folder: Path, refusal: MelanomaDistError) -> Iterator[None]:
    """Lock an existing ``folder``; raise ``refusal`` if another process of this machine holds it."""
    with _locked(os.open(folder, os.O_RDONLY), refusal):
        yield


@contextmanager
def lock_file(file: Path, refusal: MelanomaDistError) -> Iterator[None]:
    """Lock ``file``, created if missing; raise ``refusal`` if another process, on any machine, holds it.

    Network file systems share locks of files between machines, but not locks of folders. Where the file cannot be
    created, its folder is locked instead.
    """
    try:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError:
        handle = os.open(file.parent, os.O_RDONLY)
    with _locked(handle, refusal):
        yield


@contextmanager
def _locked(handle: int, refusal: MelanomaDistError) -> Iterator[None]:
    try:
        # Some network file systems support no locks. There, work continues without one.
        with suppress(OSError):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise refusal from None
        yield
    finally:
        os.close(handle)


def is_locked(folder: Path) -> bool:
    """Whether a process holds ``folder``; True if that cannot be determined."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


@contextmanager
def wait_for_lock(file: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Lock ``file``, created if missing; if another process holds it, call ``on_wait`` once and wait.

    Raises OSError where the file system supports no locks.
    """
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            on_wait()
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)

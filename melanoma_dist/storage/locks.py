"""One process at a time: a second one is refused, or waits for its turn."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from melanoma_dist.errors import MelanomaDistError

LOCK = ".lock"  # what a folder that several machines share is held by


@contextmanager
def alone_in(folder: Path, refusal: MelanomaDistError) -> Iterator[None]:
    """Hold ``folder``, which exists; raise ``refusal`` if another process of this machine does.

    A killed holder lets go.
    """
    with _held(os.open(folder, os.O_RDONLY), refusal):
        yield


@contextmanager
def alone_by(file: Path, refusal: MelanomaDistError) -> Iterator[None]:
    """Hold ``file``, made if it is not there; raise ``refusal`` if another process does, on another machine too.

    Network file systems share locks of files, not those of folders. Its folder is held where the file cannot be
    written. A killed holder lets go.
    """
    try:
        handle = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError:
        handle = os.open(file.parent, os.O_RDONLY)
    with _held(handle, refusal):
        yield


@contextmanager
def _held(handle: int, refusal: MelanomaDistError) -> Iterator[None]:
    try:
        # Some network file systems lock nothing; there, nobody is kept out.
        with suppress(OSError):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise refusal from None
        yield
    finally:
        os.close(handle)


def is_held(folder: Path) -> bool:
    """Whether a process holds ``folder``. True as well where that cannot be told."""
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
def turn_at(file: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Hold ``file``, made if it is not there, once no other process does; ``on_wait`` is called before a wait.

    A killed holder lets go. Raises OSError where the file system locks no files.
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

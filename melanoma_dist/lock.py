"""One process at a time in a folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from melanoma_dist.errors import MelanomaDistError


@contextmanager
def alone_in(folder: Path, refusal: MelanomaDistError) -> Iterator[None]:
    """Hold ``folder``, which exists; raise ``refusal`` if another process does. A killed holder lets go."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems lock no folders; there, nobody is kept out.
        with suppress(OSError):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise refusal from None
        yield
    finally:
        os.close(handle)

"""The folder of a private cluster's sockets and logs: out of others' reach, and gone with the cluster."""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from melanoma_dist import console
from melanoma_dist.distributed.preflight import temporary_base
from melanoma_dist.errors import MelanomaDistError, UserError
from melanoma_dist.storage.locks import is_locked, lock_folder

_PREFIX = "ray-"
_MARK = ".melanoma-dist"  # in folders that go with their command; holds the machine's name


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder that others cannot enter: what Ray makes, it opens to everybody.

    It is removed at the end, or by the next command here where this one is killed. It is kept, and named, after an
    error that is not the user's, for Ray's logs.
    """
    base = Path(temporary_base())
    for left in base.glob(f"{_PREFIX}*"):
        if _is_left(left):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    with lock_folder(folder, MelanomaDistError(f"{folder}: another process holds it")):
        mark = folder / _MARK
        mark.write_text(socket.gethostname())  # once the folder is held, so that nobody takes it for one left over
        try:
            yield folder
        except Exception as error:
            if not isinstance(error, UserError):
                mark.unlink(missing_ok=True)
                console.info(f"Ray's logs of this are in {folder}")
            raise
        finally:
            if mark.exists():
                shutil.rmtree(folder, ignore_errors=True)


def _is_left(folder: Path) -> bool:
    """Whether a command of this user on this machine made it and was killed. Its locks may not be seen elsewhere."""
    with suppress(OSError):
        found = folder.lstat()
        ours = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
        return ours and (folder / _MARK).read_text() == socket.gethostname() and not is_locked(folder)
    return False

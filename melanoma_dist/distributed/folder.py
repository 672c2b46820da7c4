"""The folder of a private cluster's sockets and logs: closed to other users, and removed with the cluster."""

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
_MARK = ".melanoma-dist"  # in folders to remove with their command; holds the machine's name


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder that other users cannot enter. (Ray opens its own folders to everybody.)

    It is removed at the end, or by the next command on this machine if this one is killed. After an error that is not
    the user's, it stays for Ray's logs until the next command, and a message names it.
    """
    base = Path(temporary_base())
    for leftover in base.glob(f"{_PREFIX}*"):
        if _is_abandoned(leftover):
            shutil.rmtree(leftover, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    with lock_folder(folder, MelanomaDistError(f"{folder}: another process holds it")):
        # After the lock, so that no other command takes it for abandoned.
        (folder / _MARK).write_text(socket.gethostname())
        keep = False
        try:
            yield folder
        except Exception as error:
            keep = not isinstance(error, UserError)
            raise
        finally:
            if keep:
                console.info(f"Ray's logs, until the next command here: {folder}")
            else:
                shutil.rmtree(folder, ignore_errors=True)


def _is_abandoned(folder: Path) -> bool:
    """Whether it belongs to a killed command of this user on this machine. Other machines may not see its lock."""
    with suppress(OSError):
        status = folder.lstat()
        ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.getuid()
        return ours and (folder / _MARK).read_text() == socket.gethostname() and not is_locked(folder)
    return False

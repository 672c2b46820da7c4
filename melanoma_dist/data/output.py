"""The folder that a preparation writes into: what in it is ours, and that nothing else is ever touched.

A name alone makes no file ours: shards and tables may be removed only where a journal that a preparation began lies
beside them. Whatever else lies there is refused by its name.
"""

from __future__ import annotations

import errno
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from melanoma_dist.data import manifest
from melanoma_dist.data.schema import SHARD
from melanoma_dist.errors import DataError
from melanoma_dist.storage.untrusted import parse_json

_PLANNED = {manifest.PLAN, f"{manifest.PLAN}.tmp"}
_TABLES = {*manifest.FILES, *(f"{name}.tmp" for name in manifest.FILES if name != manifest.JOURNAL)}
_SHOWN = 3


@contextmanager
def writing(out: Path) -> Iterator[None]:
    """A folder to write into, made if it is not there.

    Raises DataError for one that holds anything but an unfinished data set, and for what the disk refuses.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        _refuse_foreign(out)
        yield
    except OSError as error:
        raise DataError(f"{out}: cannot write the data set ({error.strerror or error}). {_remedy(error)}") from error


def clear(out: Path) -> None:
    """Remove what an unfinished preparation of something else left, all but the journal, and nothing else."""
    for path in _ours(out) - {out / manifest.JOURNAL}:
        path.unlink()


def _remedy(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Make room, then give the same command again: it goes on where it was."
    if error.errno == errno.EFBIG:
        return (
            "Files of 256 MiB are written, and the disk or `ulimit -f` allows none: raise that limit and give the same "
            "command again, or choose a folder on another disk with --out."
        )
    return "Choose another folder with --out."


def _refuse_foreign(out: Path) -> None:
    foreign = sorted(f"{path.name}/" if path.is_dir() else path.name for path in set(out.iterdir()) - _ours(out))
    if foreign:
        raise DataError(
            f"{out}: holds other files ({', '.join(foreign[:_SHOWN])}{', ...' if len(foreign) > _SHOWN else ''}); "
            "a data set needs a folder of its own. Choose another one with --out, or delete this one."
        )


def _ours(out: Path) -> set[Path]:
    """Regular files only: what a link leads to is somebody else's."""
    files = {path for path in out.iterdir() if stat.S_ISREG(path.lstat().st_mode)}
    begun = out / manifest.JOURNAL in files and _is_journal(out / manifest.JOURNAL)
    return {path for path in files if path.name in _PLANNED or (begun and _is_name_of_ours(path.name))}


def _is_name_of_ours(name: str) -> bool:
    return name in _TABLES or re.fullmatch(SHARD, name) is not None


def _is_journal(path: Path) -> bool:
    """Whether a preparation began this file. An empty one was about to say so when it was killed."""
    with path.open("rb") as file:
        first = file.readline(1 << 16)
    try:
        return not first or parse_json(first).keys() == {"request"}
    except (ValueError, AttributeError):
        return False

"""The folder that a preparation writes into. Files of others in it are refused by name and never touched.

A name alone does not make a file ours: shards and tables are removed only if a preparation's journal lies beside them.
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
def output_folder(out: Path) -> Iterator[None]:
    """Create the folder to write into, or open an existing one.

    Raises DataError if it contains anything but an unfinished data set, and for errors of the disk.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        foreign = sorted(f"{path.name}/" if path.is_dir() else path.name for path in set(out.iterdir()) - _ours(out))
        if foreign:
            raise DataError(
                f"{out}: contains other files ({', '.join(foreign[:_SHOWN])}{', ...' if len(foreign) > _SHOWN else ''}"
                "); a data set needs a folder of its own. Choose another one with --out, or delete this one."
            )
        yield
    except OSError as error:
        raise DataError(f"{out}: cannot write the data set ({error.strerror or error}). {_remedy(error)}") from error


def remove_unfinished(out: Path) -> None:
    """Remove the files of an unfinished preparation, except the journal."""
    for path in _ours(out) - {out / manifest.JOURNAL}:
        path.unlink()


def _remedy(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "Free space, then run the same command again to resume."
    if error.errno == errno.EFBIG:
        return (
            "Shards have 256 MiB, and the disk or `ulimit -f` allows no such files: raise that limit and run the same "
            "command again, or choose a folder on another disk with --out."
        )
    return "Choose another folder with --out."


def _ours(out: Path) -> set[Path]:
    """The files in ``out`` that a preparation wrote. Links are never ours: their targets may belong to others."""
    files = {path for path in out.iterdir() if stat.S_ISREG(path.lstat().st_mode)}
    has_journal = out / manifest.JOURNAL in files and _is_journal(out / manifest.JOURNAL)
    names = _PLANNED | _TABLES if has_journal else _PLANNED
    return {path for path in files if path.name in names or (has_journal and re.fullmatch(SHARD, path.name))}


def _is_journal(path: Path) -> bool:
    """Whether a preparation wrote this file. An empty one is from a preparation killed before its first line."""
    with path.open("rb") as file:
        first = file.readline(1 << 16)
    try:
        return not first or parse_json(first).keys() == {"request"}
    except (ValueError, AttributeError):
        return False

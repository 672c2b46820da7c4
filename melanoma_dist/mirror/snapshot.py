"""What a folder holds at one moment, with hashes, while others write and delete in it.

Files are opened before they are read, so that they stay readable when they are deleted or replaced, and are read as
long as they were then: TensorBoard's events grow meanwhile. A committed folder (``commit``) is taken whole or not at
all.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Container, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from melanoma_dist.storage import atomic

_BLOCK = 2**20
_ATTEMPTS = 20
_UNFINISHED = (".tmp", ".old")


class Content(NamedTuple):
    """The bytes of a file."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Snapshot:
    """The files of a folder by their paths in it, and open files of the bytes that were asked for."""

    files: dict[str, Content]
    _open: dict[str, BinaryIO]

    def blocks(self, path: str) -> Iterator[bytes]:
        """The bytes of a file, in order."""
        return _blocks(self._open[path], self.files[path].size)


class _Changed(Exception):
    """Files came and went while they were looked at."""


class FolderScanner:
    """Takes snapshots of the files below ``root`` whose paths ``belongs`` picks; reads only what changed."""

    def __init__(self, root: Path, belongs: Callable[[str], bool]) -> None:
        self._root, self._belongs = root, belongs
        self._known: dict[str, tuple[tuple[int, ...], Content]] = {}

    def snapshot(self, stack: ExitStack, have: Container[str]) -> Snapshot:
        """The files as they are now. Those whose hashes are not in ``have`` stay open until ``stack`` closes."""
        for _ in range(_ATTEMPTS):
            try:
                with ExitStack() as mine:
                    snapshot = self._taken(mine, have)
                    stack.push(mine.pop_all())
                return snapshot
            except _Changed:
                continue
        raise OSError(f"{self._root}: its files change faster than they can be read")

    def paths(self) -> list[str]:
        """The finished files that belong, as relative paths."""
        found = []
        for place, folders, names in os.walk(self._root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            within = Path(place).relative_to(self._root)
            found += [(within / name).as_posix() for name in names if not name.startswith(".")]
        return sorted(path for path in found if self._belongs(path) and not path.endswith(_UNFINISHED))

    def _taken(self, stack: ExitStack, have: Container[str]) -> Snapshot:
        files: dict[str, Content] = {}
        opened: dict[str, BinaryIO] = {}
        signatures = {}
        for path in self.paths():
            try:
                file = (self._root / path).open("rb")
            except FileNotFoundError:
                raise _Changed from None
            stat = os.fstat(file.fileno())
            signatures[path] = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
            opened[path] = stack.enter_context(file)
            signature, content = self._known.get(path, (None, None))
            if content is None or signature != signatures[path]:
                content = Content(_hash(file, stat.st_size), stat.st_size)
            elif content.sha256 in have:
                opened.pop(path).close()
            files[path] = content
        whole = _without_torn_folders(files, opened)
        self._known = {path: (signatures[path], content) for path, content in whole.items()}
        return Snapshot(whole, {path: file for path, file in opened.items() if path in whole})


def _without_torn_folders(files: dict[str, Content], opened: dict[str, BinaryIO]) -> dict[str, Content]:
    """The files but those of committed folders that are damaged, or were replaced while they were read."""
    kept = dict(files)
    for folder, members in committed(files).items():
        manifest = f"{folder}/{atomic.MANIFEST}"
        if manifest not in opened:
            continue  # it is the one that was judged before
        digests = {path.rpartition("/")[2]: files[path].sha256 for path in members if path != manifest}
        if _digests(opened[manifest]) != digests:
            for path in members:
                del kept[path]
    return kept


def committed(paths: dict[str, Content]) -> dict[str, set[str]]:
    """The committed folders among ``paths``, each with the paths of its files."""
    members = defaultdict(set)
    for path in paths:
        members[path.rpartition("/")[0]].add(path)
    return {folder: paths for folder, paths in members.items() if f"{folder}/{atomic.MANIFEST}" in paths}


def _digests(manifest: BinaryIO) -> object:
    manifest.seek(0)
    try:
        return json.loads(manifest.read().decode())["files"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _hash(file: BinaryIO, size: int) -> str:
    digest = hashlib.sha256()
    for block in _blocks(file, size):
        digest.update(block)
    return digest.hexdigest()


def _blocks(file: BinaryIO, size: int) -> Iterator[bytes]:
    file.seek(0)
    while size > 0 and (block := file.read(min(_BLOCK, size))):
        size -= len(block)
        yield block

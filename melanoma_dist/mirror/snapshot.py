"""Snapshots of a folder, with hashes, while others write and delete in it.

Files are opened before they are read, so that they stay readable when they are deleted or replaced. Each is read up to
its size at that moment, because TensorBoard's events grow meanwhile. A committed folder (`storage.atomic`) is taken
as a whole or not at all.
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
_TEMPORARY = (".tmp", ".old")


class Digest(NamedTuple):
    """Identifies the bytes of a file."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Snapshot:
    """The files of a folder by their relative paths, and open handles of those that have to be uploaded."""

    files: dict[str, Digest]
    _open: dict[str, BinaryIO]

    def blocks(self, path: str) -> Iterator[bytes]:
        """Yield the bytes of an open file in order."""
        return _blocks(self._open[path], self.files[path].size)


class _ChangedMeanwhile(Exception):
    """Files appeared or disappeared during the scan."""


class FolderScanner:
    """Takes snapshots of the files below ``root`` whose paths ``includes`` accepts; reads only changed files."""

    def __init__(self, root: Path, includes: Callable[[str], bool]) -> None:
        self._root, self._includes = root, includes
        self._known: dict[str, tuple[tuple[int, ...], Digest]] = {}

    def snapshot(self, stack: ExitStack, uploaded: Container[str]) -> Snapshot:
        """Take a snapshot. Files whose hashes are not in ``uploaded`` stay open until ``stack`` closes."""
        for _ in range(_ATTEMPTS):
            try:
                with ExitStack() as attempt:
                    snapshot = self._scan(attempt, uploaded)
                    stack.push(attempt.pop_all())
                return snapshot
            except _ChangedMeanwhile:
                continue
        raise OSError(f"{self._root}: its files change faster than they can be read")

    def paths(self) -> list[str]:
        """List the complete files that belong to the copy, as sorted relative paths."""
        paths = []
        for place, folders, names in os.walk(self._root):
            folders[:] = [name for name in folders if not name.startswith(".")]
            within = Path(place).relative_to(self._root)
            paths += [(within / name).as_posix() for name in names if not name.startswith(".")]
        return sorted(path for path in paths if self._includes(path) and not path.endswith(_TEMPORARY))

    def _scan(self, stack: ExitStack, uploaded: Container[str]) -> Snapshot:
        files: dict[str, Digest] = {}
        opened: dict[str, BinaryIO] = {}
        signatures = {}
        for path in self.paths():
            try:
                file = (self._root / path).open("rb")
            except FileNotFoundError:
                raise _ChangedMeanwhile from None
            stat = os.fstat(file.fileno())
            signatures[path] = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
            opened[path] = stack.enter_context(file)
            signature, digest = self._known.get(path, (None, None))
            if digest is None or signature != signatures[path]:
                sha256 = hashlib.sha256()
                for block in _blocks(file, stat.st_size):
                    sha256.update(block)
                digest = Digest(sha256.hexdigest(), stat.st_size)
            elif digest.sha256 in uploaded:
                opened.pop(path).close()
            files[path] = digest
        intact = _without_torn_folders(files, opened)
        self._known = {path: (signatures[path], digest) for path, digest in intact.items()}
        return Snapshot(intact, {path: file for path, file in opened.items() if path in intact})


def _without_torn_folders(files: dict[str, Digest], opened: dict[str, BinaryIO]) -> dict[str, Digest]:
    """Leave out committed folders that are corrupt or were replaced during the scan."""
    intact = dict(files)
    for folder, members in group_committed(files).items():
        manifest = f"{folder}/{atomic.MANIFEST}"
        if manifest not in opened:
            continue  # unchanged since it was checked
        digests = {path.rpartition("/")[2]: files[path].sha256 for path in members if path != manifest}
        if _read_digests(opened[manifest]) != digests:
            for path in members:
                del intact[path]
    return intact


def group_committed(paths: dict[str, Digest]) -> dict[str, set[str]]:
    """Map each committed folder among ``paths`` to the paths of its files."""
    members = defaultdict(set)
    for path in paths:
        members[path.rpartition("/")[0]].add(path)
    return {folder: paths for folder, paths in members.items() if f"{folder}/{atomic.MANIFEST}" in paths}


def _read_digests(manifest: BinaryIO) -> object:
    manifest.seek(0)
    try:
        return json.loads(manifest.read().decode())["files"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _blocks(file: BinaryIO, size: int) -> Iterator[bytes]:
    file.seek(0)
    while size > 0 and (block := file.read(min(_BLOCK, size))):
        size -= len(block)
        yield block

"""A folder in a storage that fsspec knows: bytes in, bytes out, and whether all of them came."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO

import fsspec

_BLOCK = 8 * 2**20  # bytes at a time


class CutShort(OSError):
    """The storage holds fewer or more bytes of a file than were written."""


class Store:
    """A folder of a storage; names are relative to it. Raises whatever the storage's own library raises."""

    def __init__(self, url: str) -> None:
        local = url.partition("://")[0] in ("file", "local")
        self._files, self._root = fsspec.core.url_to_fs(url.rstrip("/"), **({"auto_mkdir": True} if local else {}))

    def write(self, name: str, blocks: Iterable[bytes], size: int) -> None:
        """Write ``size`` bytes. Raises CutShort if other than those are there afterwards."""
        file: BinaryIO
        with self._files.open(self._path(name), "wb") as file:
            for block in blocks:
                file.write(block)
        self._files.invalidate_cache()
        if (there := self._files.info(self._path(name))["size"]) != size:
            raise CutShort(f"{size} bytes were written and {there} are there")

    def blocks(self, name: str) -> Iterator[bytes]:
        """The bytes of a file, in order. Raises FileNotFoundError where there is none."""
        file: BinaryIO
        with self._files.open(self._path(name), "rb") as file:
            while block := file.read(_BLOCK):
                yield block

    def names(self, folder: str) -> list[str]:
        """The files in a folder, by name; none where there is no folder."""
        self._files.invalidate_cache()
        try:
            entries = self._files.ls(self._path(folder), detail=True)
        except FileNotFoundError:
            return []
        return sorted(entry["name"].rpartition("/")[2] for entry in entries if entry["type"] == "file")

    def delete(self, name: str) -> None:
        """Delete a file."""
        self._files.rm_file(self._path(name))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def told(error: BaseException) -> str:
    """What a storage's library says, in a line."""
    said = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {said}" if said else type(error).__name__

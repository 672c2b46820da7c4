"""Folders in remote storage: S3, Google Cloud Storage, any other of fsspec, which only this module imports."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import BinaryIO, TypedDict

import fsspec

_BLOCK = 8 * 2**20  # bytes read at a time


class _Entry(TypedDict):
    name: str
    type: str
    size: int


class IncompleteWrite(OSError):
    """The storage holds fewer or more bytes of a file than were written."""


class RemoteFolder:
    """A folder of a storage; names are relative to it. Methods raise whatever the storage's own library raises."""

    def __init__(self, url: str) -> None:
        local = url.partition("://")[0] in ("file", "local")
        self._files, self._root = fsspec.core.url_to_fs(url.rstrip("/"), **({"auto_mkdir": True} if local else {}))

    def write(self, name: str, blocks: Iterable[bytes], size: int) -> None:
        """Write ``size`` bytes, then ask the storage for the size. Raises IncompleteWrite if they differ."""
        file: BinaryIO
        with self._files.open(self._path(name), "wb") as file:
            for block in blocks:
                file.write(block)
        self._files.invalidate_cache()
        if (stored := self._files.info(self._path(name))["size"]) != size:
            raise IncompleteWrite(f"{size} bytes were written, but the storage holds {stored}")

    def read_blocks(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a file in order. Raises FileNotFoundError if there is no such file."""
        file: BinaryIO
        with self._files.open(self._path(name), "rb") as file:
            while block := file.read(_BLOCK):
                yield block

    def sizes(self) -> dict[str, int]:
        """Return the bytes of each file in the folder itself, by name. Raises FileNotFoundError if it is missing."""
        return {str(entry["name"]).rpartition("/")[2]: int(entry["size"]) for entry in self._list("")}

    def list_files(self, folder: str) -> list[str]:
        """Return the sorted names of the files in a folder; empty if there is no such folder."""
        try:
            return sorted(str(entry["name"]).rpartition("/")[2] for entry in self._list(folder))
        except FileNotFoundError:
            return []

    def delete(self, name: str) -> None:
        """Delete a file."""
        self._files.rm_file(self._path(name))

    def _list(self, folder: str) -> list[_Entry]:
        self._files.invalidate_cache()
        entries = self._files.ls(self._path(folder), detail=True)
        return [entry for entry in entries if entry["type"] == "file"]

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else str(self._root)


def describe_error(error: BaseException) -> str:
    """Return the class and the first line of an error of a storage's library."""
    line = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__

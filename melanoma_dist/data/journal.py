"""What a preparation has finished, image by image, so that a killed one goes on where it was.

The journal is a file of lines: first what was asked for, then one line per image, written when the image's bytes are on
the disk. Whatever follows the last whole line never happened. One process at a time may hold it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from melanoma_dist.data.manifest import JOURNAL
from melanoma_dist.errors import DataError
from melanoma_dist.storage.locks import lock_folder
from melanoma_dist.storage.untrusted import parse_json

Record = dict[str, Any]
_LONGEST = 2**20  # bytes of a line; ours have some hundred


class Journal:
    """The journal of the folder it lies in; open it with `opened`."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.finished = 0
        """How many images are finished."""

    def resume(self, request: str) -> bool:
        """Look for what was finished of the same ``request``; False, and an empty journal, if it was another's."""
        lines = self._whole_lines()
        if next(lines, None) == {"request": request}:
            self.finished = sum(1 for _ in lines)
            return True
        self._file.truncate(0)
        self._file.seek(0)
        self._write([{"request": request}])
        return False

    def add(self, records: Iterable[Record]) -> None:
        """Note images whose bytes are on the disk."""
        new = list(records)
        self._write(new)
        self.finished += len(new)

    def records(self) -> Iterator[Record]:
        """What was finished, in order, read from the file: nothing is kept in memory."""
        lines = self._whole_lines()
        next(lines)
        return lines

    def _write(self, records: list[Record]) -> None:
        self._file.write(b"".join(json.dumps(record).encode() + b"\n" for record in records))
        self._file.flush()
        os.fsync(self._file.fileno())

    def _whole_lines(self) -> Iterator[Record]:
        """Every line up to the first that was torn; the file ends there afterwards, if all are taken."""
        end = 0
        self._file.seek(0)
        for line in iter(lambda: self._file.readline(_LONGEST), b""):
            try:
                record = parse_json(line) if line.endswith(b"\n") else None
            except ValueError:
                record = None
            if not isinstance(record, dict):
                break
            end += len(line)
            yield record
        self._file.truncate(end)
        self._file.seek(end)


@contextmanager
def opened(folder: Path) -> Iterator[Journal]:
    """The journal of ``folder``. Raises DataError when another process is preparing there."""
    refusal = f"{folder}: another preparation is writing here. Wait for it, or choose another folder with --out."
    with lock_folder(folder, DataError(refusal)), (folder / JOURNAL).open("a+b") as file:
        yield Journal(file)

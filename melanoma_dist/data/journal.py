"""The journal of a preparation: it records finished images, so that a killed preparation resumes.

The journal is a file of JSON lines: first the request, then one line per image, written when the image's bytes are on
the disk. Anything after the last whole line is ignored. One process at a time can open it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from melanoma_dist.data.manifest import JOURNAL
from melanoma_dist.errors import DataError
from melanoma_dist.storage.locks import lock_folder
from melanoma_dist.storage.untrusted import parse_json

Record = Mapping[str, Any]  # as JSON holds it; `store` checks it
_LONGEST = 2**20  # bytes of a line; ours have some hundred


class Journal:
    """The journal of one folder; `open_journal` opens it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.finished = 0
        """Number of finished images."""

    def resume(self, request: str) -> bool:
        """Count the finished images if the journal is of the same ``request``; otherwise empty it and return False."""
        lines = self._whole_lines()
        if next(lines, None) == {"request": request}:
            self.finished = sum(1 for _ in lines)
            return True
        self._file.truncate(0)
        self._file.seek(0)
        self._write([{"request": request}])
        return False

    def add(self, records: Sequence[Record]) -> None:
        """Record images whose bytes are on the disk."""
        self._write(records)
        self.finished += len(records)

    def records(self) -> Iterator[Record]:
        """The records of finished images in order, read line by line from the file."""
        lines = self._whole_lines()
        next(lines)
        return lines

    def _write(self, records: Sequence[Record]) -> None:
        self._file.write(b"".join(json.dumps(record).encode() + b"\n" for record in records))
        self._file.flush()
        os.fsync(self._file.fileno())

    def _whole_lines(self) -> Iterator[Record]:
        """Every line up to the first torn one. When all are read, the file is cut there, so that `add` continues it."""
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
def open_journal(folder: Path) -> Iterator[Journal]:
    """Open the journal of ``folder``. Raises DataError if another process is preparing there."""
    refusal = f"{folder}: another preparation is writing here. Wait for it, or choose another folder with --out."
    with lock_folder(folder, DataError(refusal)), (folder / JOURNAL).open("a+b") as file:
        yield Journal(file)

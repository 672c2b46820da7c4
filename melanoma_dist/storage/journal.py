"""A journal of finished work, so that a killed command resumes.

It is a file of JSON lines: first what was requested, then one line per finished item. Anything after the last whole
line is ignored. One process at a time may use it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO

from melanoma_dist.storage.untrusted import parse_json

Record = Mapping[str, Any]  # as JSON holds it; the reader checks it
_LONGEST = 2**20  # bytes of a line; ours have some hundred


class Journal:
    """The journal in a file that is open for reading and appending."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.finished = 0
        """Number of finished items."""

    def request(self) -> object:
        """What was requested when the journal was begun; None for an empty file, or for one that is no journal."""
        self._file.seek(0)
        record = _parse(self._file.readline(_LONGEST))
        return None if record is None else record.get("request")

    def resume(self, request: object) -> bool:
        """Count the finished items if the journal is of the same ``request``; otherwise empty it and return False."""
        lines = self._whole_lines()
        if next(lines, None) == {"request": request}:
            self.finished = sum(1 for _ in lines)
            return True
        self._file.truncate(0)
        self._write([{"request": request}])
        self.finished = 0
        return False

    def add(self, records: Sequence[Record]) -> None:
        """Record items whose results are safe."""
        self._write(records)
        self.finished += len(records)

    def records(self) -> Iterator[Record]:
        """The records of finished items in order, read line by line from the file."""
        lines = self._whole_lines()
        next(lines)
        return lines

    def cut(self, count: int) -> None:
        """Forget all items but the first ``count``."""
        self._file.seek(0)
        for _ in range(count + 1):  # and the request
            self._file.readline(_LONGEST)
        self._file.truncate(self._file.tell())
        self.finished = count

    def _write(self, records: Sequence[Record]) -> None:
        self._file.seek(0, os.SEEK_END)
        self._file.write(b"".join(json.dumps(record).encode() + b"\n" for record in records))
        self._file.flush()
        os.fsync(self._file.fileno())

    def _whole_lines(self) -> Iterator[Record]:
        """Every line up to the first torn one. When all are read, the file is cut there, so that `add` continues it."""
        end = 0
        self._file.seek(0)
        for line in iter(lambda: self._file.readline(_LONGEST), b""):
            if (record := _parse(line)) is None:
                break
            end += len(line)
            yield record
        self._file.truncate(end)
        self._file.seek(end)


def _parse(line: bytes) -> Record | None:
    """The object in a line; None for a torn line."""
    try:
        record = parse_json(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return record if isinstance(record, dict) else None

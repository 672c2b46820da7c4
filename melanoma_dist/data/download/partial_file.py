"""An unfinished download on the disk: its bytes, and a note of the address and version they belong to."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from melanoma_dist.storage import atomic
from melanoma_dist.storage.untrusted import read_json


@dataclass(frozen=True)
class FileVersion:
    """Identifies a version of a file on a server."""

    url: str
    etag: str | None
    last_modified: str | None
    total: int | None
    """Bytes of the whole file; None if the server does not announce them."""

    @classmethod
    def from_headers(cls, url: str, headers: Mapping[str, str]) -> FileVersion:
        """Read it from the headers of a complete response."""
        total = parse_decimal(headers.get("Content-Length", ""))
        return cls(url, headers.get("ETag"), headers.get("Last-Modified"), total)

    @property
    def condition(self) -> str | None:
        """The value for If-Range: a strong tag (RFC 9110 forbids weak ones), else the date; None: cannot resume."""
        if self.total is None:
            return None
        strong = self.etag and not self.etag.startswith("W/")
        return self.etag if strong else self.last_modified

    def matches(self, headers: Mapping[str, str]) -> bool:
        """Whether a partial response has this version, for servers that ignore If-Range. The date may be missing."""
        same_date = headers.get("Last-Modified", self.last_modified) == self.last_modified
        return headers.get("ETag") == self.etag and same_date


class PartialFile:
    """``<name>.part`` and ``<name>.part.json`` beside the file ``target``.

    The SHA-256 is updated with each chunk; bytes from an earlier command are read once for it.
    """

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f"{target.name}.part.json")
        self.version = self._read_note()
        self.size = self.path.stat().st_size if self.path.is_file() else 0
        self._hash = None if self.size else hashlib.sha256()

    @property
    def is_complete(self) -> bool:
        """Whether all bytes are here."""
        return self.version is not None and self.version.total == self.size

    @property
    def sha256(self) -> str:
        """The SHA-256 of the bytes so far, in hex."""
        return self._running_hash().hexdigest()

    def is_from(self, url: str) -> bool:
        """Whether the bytes are known to come from ``url``."""
        return self.version is not None and self.version.url == url

    def restart(self, version: FileVersion | None) -> None:
        """Delete the bytes, then note the new version. A kill in between must not leave old bytes under it."""
        self.remove()
        if version is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._note, asdict(version))
            self.version = version

    def mark_complete(self, version: FileVersion) -> None:
        """Take the present size as the size of ``version``, for a server that announced none."""
        self.version = replace(version, total=self.size)

    @contextmanager
    def appending(self) -> Iterator[Callable[[bytes], None]]:
        """Yield a function that appends bytes."""
        digest = self._running_hash()
        with self.path.open("ab") as file:

            def append(chunk: bytes) -> None:
                file.write(chunk)
                digest.update(chunk)
                self.size += len(chunk)

            yield append

    def commit(self, target: Path) -> None:
        """Rename the complete file to ``target``."""
        atomic.commit_file(self.path, target)
        self._note.unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete the bytes and the note."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        self.size, self._hash, self.version = 0, hashlib.sha256(), None

    def _running_hash(self) -> hashlib._Hash:
        if self._hash is None:
            with self.path.open("rb") as file:
                self._hash = hashlib.file_digest(file, "sha256")
        return self._hash

    def _read_note(self) -> FileVersion | None:
        """Read the note; None if it is unreadable, and the download then restarts."""
        try:
            version = FileVersion(**read_json(self._note))
        except (OSError, ValueError, TypeError):
            return None
        texts = (version.url, version.etag or "", version.last_modified or "")
        is_valid = all(isinstance(text, str) for text in texts) and type(version.total or 0) is int
        return version if is_valid else None


def parse_decimal(text: str) -> int | None:
    """Parse the digits of a header, or return None: "²" is a digit too, and a number may have thousands of them."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text.strip()) else None


def write_json(path: Path, tree: object) -> None:
    """Write a JSON file atomically."""
    atomic.write_text(path, json.dumps(tree, indent=2) + "\n")

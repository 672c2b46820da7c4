"""The bytes of an unfinished file on the disk, and which version of which address they are."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from melanoma_dist.storage import atomic
from melanoma_dist.storage.untrusted import read_json

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Version:
    """What a server says of a file, so that it can be recognised later."""

    url: str
    etag: str | None
    last_modified: str | None
    total: int | None
    """Bytes of the whole file; None where the server does not say."""

    @classmethod
    def of(cls, url: str, headers: Mapping[str, str]) -> Version:
        """From the headers of a whole answer."""
        return cls(url, headers.get("ETag"), headers.get("Last-Modified"), decimal(headers.get("Content-Length", "")))

    @classmethod
    def read(cls, told: Any) -> Version:
        """From a note on the disk. Raises TypeError for one that says something else."""
        version = cls(**told)
        texts = (version.url, version.etag or "", version.last_modified or "")
        if not all(isinstance(text, str) for text in texts) or type(version.total or 0) is not int:
            raise TypeError("its fields are of other kinds")
        return version

    @property
    def condition(self) -> str | None:
        """For If-Range: a strong tag (RFC 9110 forbids weak ones), else the date; None if nothing can be resumed."""
        if self.total is None:
            return None
        strong = self.etag and not self.etag.startswith("W/")
        return self.etag if strong else self.last_modified

    def agrees(self, headers: Mapping[str, str]) -> bool:
        """Whether a partial answer is of this version, for servers that ignore If-Range. It may leave out the date."""
        same_date = headers.get("Last-Modified", self.last_modified) == self.last_modified
        return headers.get("ETag") == self.etag and same_date


class PartialFile:
    """``<name>.part`` and ``<name>.part.json`` beside the file ``target`` that they will become.

    The SHA-256 runs along; bytes that an earlier command left are read once for it.
    """

    def __init__(self, target: Path) -> None:
        self.path = target.with_name(f"{target.name}.part")
        self._note = target.with_name(f"{target.name}.part.json")
        self.version = self._read_note()
        self.size = self.path.stat().st_size if self.path.is_file() else 0
        self._digest = None if self.size else hashlib.sha256()

    @property
    def complete(self) -> bool:
        """Whether all bytes are here."""
        return self.version is not None and self.version.total == self.size

    @property
    def sha256(self) -> str:
        """Of the bytes so far, in hex."""
        return self._running().hexdigest()

    def belongs_to(self, url: str) -> bool:
        """Whether the bytes are known to come from ``url``."""
        return self.version is not None and self.version.url == url

    def restart(self, version: Version | None) -> None:
        """Throw the bytes away. They go first: no kill in between may leave them under the new version."""
        self.remove()
        if version is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self._note, asdict(version))
            self.version = version

    def close(self, version: Version) -> None:
        """Make the bytes so far the whole of ``version``, where no server said how many there are."""
        self.version = replace(version, total=self.size)

    @contextmanager
    def appending(self) -> Iterator[Callable[[bytes], None]]:
        """A function that adds bytes at the end."""
        digest = self._running()
        with self.path.open("ab") as file:

            def append(chunk: bytes) -> None:
                file.write(chunk)
                digest.update(chunk)
                self.size += len(chunk)

            yield append

    def become(self, target: Path) -> None:
        """Finished: the file takes its name."""
        atomic.commit_file(self.path, target)
        self._note.unlink(missing_ok=True)

    def remove(self) -> None:
        """Take both files off the disk."""
        self.path.unlink(missing_ok=True)
        self._note.unlink(missing_ok=True)
        self.size, self._digest, self.version = 0, hashlib.sha256(), None

    def _running(self) -> hashlib._Hash:
        if self._digest is None:
            self._digest = hashlib.sha256()
            with self.path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    self._digest.update(chunk)
        return self._digest

    def _read_note(self) -> Version | None:
        """A note that cannot be read is none: the file then starts again."""
        try:
            return Version.read(read_json(self._note))
        except (OSError, ValueError, TypeError):
            return None


def decimal(text: str) -> int | None:
    """The number that a header gives in digits, or None: "²" is a digit too, and thousands of them are no number."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text.strip()) else None


def write_json(path: Path, tree: object) -> None:
    """Write a JSON file whole or not at all."""
    atomic.write_text(path, json.dumps(tree, indent=2) + "\n")

"""A copy of a folder in remote storage: objects named by their hash, and manifests that map paths to objects.

    <url>/objects/<sha256>
    <url>/manifests/<number>-<sha256 of the manifest>.json      {"files": {path: [sha256, size]}}

An update writes objects first and their manifest last. Only then does it delete the objects that neither this manifest
nor the one before it names. A manifest with the right hash therefore stands for a complete copy. Nothing is ordered by
time.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from melanoma_dist.mirror.snapshot import Digest, FolderScanner, group_committed
from melanoma_dist.storage import atomic
from melanoma_dist.storage.remote import RemoteFolder
from melanoma_dist.storage.untrusted import parse_json

_GENERATIONS = 2  # the newest, and the one before it, whose objects stay until the newest is complete
_NAME = re.compile(r"(\d{8})-([0-9a-f]{64})\.json")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_MANIFEST_BYTES = 64 * 2**20

Log = Callable[[str], object]


class CorruptCopy(Exception):
    """A manifest or an object of the copy is not what was written."""


@dataclass(frozen=True)
class Generation:
    """One complete state of the folder."""

    number: int
    files: dict[str, Digest]


class FolderCopy:
    """The copy of the files below ``root`` whose relative paths ``includes`` accepts."""

    def __init__(self, url: str, root: Path, includes: Callable[[str], bool], log: Log) -> None:
        """``log`` gets a message about each corrupt manifest. Raises the storage library's error for a bad URL."""
        self.url, self._root, self._includes, self._log = url, root, includes, log
        self._remote = RemoteFolder(url)
        self._scanner = FolderScanner(root, includes)
        self._newest: Generation | None = None
        self._is_loaded = False

    def newest(self) -> Generation | None:
        """Read the newest intact manifest; None if there is none. Objects are not checked."""
        for name in reversed(self._manifests()):
            try:
                return self._read_manifest(name)
            except (CorruptCopy, FileNotFoundError) as error:
                self._log(f"{self.url}/manifests/{name} is corrupt ({error}); falling back to the manifest before it.")
        return None

    def update(self) -> bool:
        """Copy the present state of the folder; return whether anything was new.

        Raises what the storage's library raises. The copy is then in its previous state.
        """
        if not self._is_loaded:
            self._newest, self._is_loaded = self.newest(), True
        previous = self._newest.files if self._newest else {}
        uploaded = {digest.sha256 for digest in previous.values()} & set(self._remote.list_files("objects"))
        with ExitStack() as stack:
            snapshot = self._scanner.snapshot(stack, uploaded)
            if previous and not snapshot.files:
                raise FileNotFoundError(f"{self._root} is gone; its copy stays as it is")
            if snapshot.files == previous and uploaded >= {digest.sha256 for digest in previous.values()}:
                return False
            for path, digest in snapshot.files.items():
                if digest.sha256 not in uploaded:  # two files may have one object
                    self._remote.write(f"objects/{digest.sha256}", snapshot.blocks(path), digest.size)
                    uploaded.add(digest.sha256)
        self._commit(snapshot.files)
        return True

    def restore(self, generation: Generation, last: Sequence[str] = ()) -> list[str]:
        """Write the files of a generation below the root, each checked by its hash. Return the corrupt paths.

        A committed folder with a corrupt file is left out as a whole. The files ``last`` mark something as finished.
        They are written last, in this order, and only if every other file except TensorBoard's events is intact.
        Raises what the storage's library raises, and OSError from the disk.
        """
        folders = group_committed(generation.files)
        inside = {path for paths in folders.values() for path in paths}
        corrupt = [name for name in sorted(folders) if not self._fetch_folder(generation, name, folders[name])]
        single = sorted(generation.files.keys() - inside - set(last))
        lost = [path for path in single if not self._fetch(generation, path)]
        # TensorBoard's curves may be lost: nothing is computed from them.
        if all(PurePosixPath(path).name.startswith("events.") for path in lost):
            for path in last:
                if path in generation.files and not self._fetch(generation, path):
                    return [*corrupt, *lost, path]
        return [*corrupt, *lost]

    def read_file(self, generation: Generation, path: str) -> bytes:
        """Read a small file of a generation. Raises CorruptCopy."""
        return b"".join(self._checked_blocks(generation.files[path]))

    def _fetch(self, generation: Generation, path: str) -> bool:
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            atomic.write_file(target, lambda aside: self._download(generation.files[path], aside))
        except CorruptCopy:
            return False
        return True

    def _fetch_folder(self, generation: Generation, folder: str, paths: set[str]) -> bool:
        def write(aside: Path) -> None:
            for path in paths - {f"{folder}/{atomic.MANIFEST}"}:  # write_folder writes an equal one
                self._download(generation.files[path], aside / PurePosixPath(path).name)

        try:
            atomic.write_folder(self._root / folder, write)
        except CorruptCopy:
            return False
        return True

    def _download(self, digest: Digest, target: Path) -> None:
        with target.open("wb") as file:
            for block in self._checked_blocks(digest):
                file.write(block)

    def _checked_blocks(self, digest: Digest) -> Iterator[bytes]:
        """Yield the bytes of an object. Raises CorruptCopy after the last one, or as soon as there are too many."""
        sha256, size = hashlib.sha256(), 0
        try:
            for block in self._remote.read_blocks(f"objects/{digest.sha256}"):
                sha256.update(block)
                size += len(block)
                if size > digest.size:
                    raise CorruptCopy("it is longer than what was written")
                yield block
        except FileNotFoundError:
            raise CorruptCopy("it is missing") from None
        if sha256.hexdigest() != digest.sha256:
            raise CorruptCopy("it is not what was written")

    def _commit(self, files: dict[str, Digest]) -> None:
        """Write the manifest of the next generation, then delete what neither it nor the one before it needs."""
        text = json.dumps({"files": files}, indent=0).encode()
        names = self._manifests()
        number = int(names[-1].partition("-")[0]) + 1 if names else 1
        name = f"{number:08d}-{hashlib.sha256(text).hexdigest()}.json"
        self._remote.write(f"manifests/{name}", [text], len(text))
        previous, self._newest = self._newest, Generation(number, files)
        needed = {digest.sha256 for digest in (*files.values(), *(previous.files.values() if previous else ()))}
        for old in names[: 1 - _GENERATIONS]:
            self._remote.delete(f"manifests/{old}")
        for old in self._remote.list_files("objects"):
            if old not in needed:
                self._remote.delete(f"objects/{old}")

    def _manifests(self) -> list[str]:
        return [name for name in self._remote.list_files("manifests") if _NAME.fullmatch(name)]

    def _read_manifest(self, name: str) -> Generation:
        content = b""
        for block in self._remote.read_blocks(f"manifests/{name}"):
            content += block
            if len(content) > _MAX_MANIFEST_BYTES:
                raise CorruptCopy("it is too large")
        number, sha256 = name.removesuffix(".json").split("-")
        if hashlib.sha256(content).hexdigest() != sha256:
            raise CorruptCopy("it is not what was written")
        try:
            entries = parse_json(content)["files"]
            files = {path: Digest(str(sha256), int(size)) for path, (sha256, size) in entries.items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise CorruptCopy("it is not a manifest") from None
        for path, digest in files.items():
            if not self._includes(path) or not _is_plain(path) or not _SHA256.fullmatch(digest.sha256):
                raise CorruptCopy(f"it names {path[:80]!r}")
        return Generation(int(number), files)


def _is_plain(path: str) -> bool:
    """Whether a relative path stays inside its folder."""
    parts = path.split("/")
    return "\0" not in path and "\\" not in path and not any(part == "" or part.startswith(".") for part in parts)

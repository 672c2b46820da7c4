"""The copy of a folder in a storage: objects named by their hash, and manifests that say which file each is.

    <url>/objects/<sha256>
    <url>/manifests/<number>-<sha256 of the manifest>.json      {"files": {path: [sha256, size]}}

Objects come first, their manifest last, and only then are objects deleted that neither it nor the one before it names.
A manifest that is there and has its hash is therefore a whole copy. Nothing is ordered by time.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from melanoma_dist.mirror.snapshot import Content, FolderScanner, Snapshot, committed
from melanoma_dist.storage import atomic
from melanoma_dist.storage.remote import Store
from melanoma_dist.storage.untrusted import parse_json

_KEPT = 2  # generations: the newest, and the one whose objects stay until the next is whole
_NAME = re.compile(r"(\d{8})-([0-9a-f]{64})\.json")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LARGEST_MANIFEST = 64 * 2**20  # bytes

Tell = Callable[[str], object]


class Damaged(Exception):
    """A manifest or an object of the copy is not what was written."""


@dataclass(frozen=True)
class Generation:
    """A whole state of the folder."""

    number: int
    files: dict[str, Content]


class Copy:
    """The copy of the files below ``root`` whose paths ``belongs`` picks."""

    def __init__(self, url: str, root: Path, belongs: Callable[[str], bool], tell: Tell) -> None:
        """``tell`` hears what is damaged. Raises what the storage's library raises for a URL that is none."""
        self.url, self._root, self._belongs, self._tell = url, root, belongs, tell
        self._store = Store(url)
        self._watch = FolderScanner(root, belongs)
        self._newest: Generation | None = None
        self._asked = False

    def newest(self) -> Generation | None:
        """The newest generation that is whole, as far as manifests tell; None where there is none."""
        for name in reversed(self._manifests()):
            try:
                return self._read(name)
            except (Damaged, FileNotFoundError) as error:
                self._tell(f"{self.url}/manifests/{name} is damaged ({error}); the one before it counts.")
        return None

    def update(self) -> bool:
        """Bring the copy to what the folder holds now; returns whether anything was new.

        Raises what the storage's library raises. The copy is then what it was before.
        """
        if not self._asked:
            self._newest, self._asked = self.newest(), True
        before = self._newest.files if self._newest else {}
        have = {content.sha256 for content in before.values()} & set(self._store.names("objects"))
        with ExitStack() as stack:
            snapshot = self._watch.snapshot(stack, have)
            if before and not snapshot.files:
                raise FileNotFoundError(f"{self._root} is gone; its copy stays as it is")
            if snapshot.files == before and have >= {content.sha256 for content in before.values()}:
                return False
            self._upload(snapshot, have)
        self._commit(snapshot.files)
        return True

    def restore(self, generation: Generation, last: Sequence[str] = ()) -> list[str]:
        """Write the files of a generation below the root, whole and hash-checked. Returns what is damaged.

        A committed folder with a damaged file is left out whole. The files ``last`` say that something is finished:
        they come last, in this order, and not at all where a file that is not replaceable is damaged. Raises what
        the storage's library raises, and OSError from the disk.
        """
        folders = committed(generation.files)
        inside = {path for paths in folders.values() for path in paths}
        damaged = [folder for folder in sorted(folders) if not self._fetch_folder(generation, folder, folders[folder])]
        single = sorted(generation.files.keys() - inside - set(last))
        lost = [path for path in single if not self._fetch(generation, path)]
        if all(is_events(path) for path in lost):
            for path in last:
                if path in generation.files and not self._fetch(generation, path):
                    return [*damaged, *lost, path]
        return [*damaged, *lost]

    def content(self, generation: Generation, path: str) -> bytes:
        """The bytes of a small file of a generation. Raises Damaged."""
        return b"".join(self._checked(generation.files[path]))

    def _fetch(self, generation: Generation, path: str) -> bool:
        target = self._root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            atomic.write_file(target, lambda aside: self._download(generation.files[path], aside))
        except Damaged:
            return False
        return True

    def _fetch_folder(self, generation: Generation, folder: str, paths: set[str]) -> bool:
        def write(aside: Path) -> None:
            for path in paths - {f"{folder}/{atomic.MANIFEST}"}:  # that one is made anew, and comes to the same
                self._download(generation.files[path], aside / PurePosixPath(path).name)

        try:
            atomic.write_folder(self._root / folder, write)
        except Damaged:
            return False
        return True

    def _download(self, content: Content, target: Path) -> None:
        with target.open("wb") as file:
            for block in self._checked(content):
                file.write(block)

    def _checked(self, content: Content) -> Iterator[bytes]:
        """The bytes of an object. Raises Damaged at the end, or where more come than there should be."""
        digest, size = hashlib.sha256(), 0
        try:
            for block in self._store.blocks(f"objects/{content.sha256}"):
                digest.update(block)
                size += len(block)
                if size > content.size:
                    raise Damaged("it is longer than what was written")
                yield block
        except FileNotFoundError:
            raise Damaged("it is gone") from None
        if digest.hexdigest() != content.sha256:
            raise Damaged("it is not what was written")

    def _upload(self, snapshot: Snapshot, have: set[str]) -> None:
        there = set(have)
        for path, content in snapshot.files.items():
            if content.sha256 not in there:
                self._store.write(f"objects/{content.sha256}", snapshot.blocks(path), content.size)
                there.add(content.sha256)

    def _commit(self, files: dict[str, Content]) -> None:
        """Write the manifest of the next generation, then delete what neither it nor the one before it needs."""
        text = json.dumps({"files": files}, indent=0).encode()
        names = self._manifests()
        number = int(names[-1].partition("-")[0]) + 1 if names else 1
        name = f"{number:08d}-{hashlib.sha256(text).hexdigest()}.json"
        self._store.write(f"manifests/{name}", [text], len(text))
        before, self._newest = self._newest, Generation(number, files)
        needed = {content.sha256 for content in (*files.values(), *(before.files.values() if before else ()))}
        for old in names[: 1 - _KEPT]:
            self._store.delete(f"manifests/{old}")
        for old in self._store.names("objects"):
            if old not in needed:
                self._store.delete(f"objects/{old}")

    def _manifests(self) -> list[str]:
        return [name for name in self._store.names("manifests") if _NAME.fullmatch(name)]

    def _read(self, name: str) -> Generation:
        content = b""
        for block in self._store.blocks(f"manifests/{name}"):
            content += block
            if len(content) > _LARGEST_MANIFEST:
                raise Damaged("it is larger than any that was written")
        number, digest = name.removesuffix(".json").split("-")
        if hashlib.sha256(content).hexdigest() != digest:
            raise Damaged("it is not what was written")
        return Generation(int(number), self._files(content))

    def _files(self, content: bytes) -> dict[str, Content]:
        try:
            told = parse_json(content)["files"]
            files = {path: Content(str(sha256), int(size)) for path, (sha256, size) in told.items()}
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Damaged("it is no manifest") from None
        for path, found in files.items():
            if not self._belongs(path) or not _is_plain(path) or not _SHA256.fullmatch(found.sha256):
                raise Damaged(f"it names {path[:80]!r}")
        return files


def is_events(path: str) -> bool:
    """Whether a file is TensorBoard's: a curve, which nothing is computed from."""
    return PurePosixPath(path).name.startswith("events.")


def _is_plain(path: str) -> bool:
    """Whether a path leads to a file below the folder that it is relative to."""
    parts = path.split("/")
    return "\0" not in path and "\\" not in path and not any(part == "" or part.startswith(".") for part in parts)

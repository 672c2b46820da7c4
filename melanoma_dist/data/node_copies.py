"""A prepared data set that lies in object storage, copied once per node to a local disk and proved there.

A copy lies in ``<cache>/copies/<name>-<fingerprint>``; changed data has another fingerprint and gets another folder. It
is made in a folder aside, file by file, each taking its name when all its bytes are there, so that a killed copy goes
on from its last whole file. The folder takes its name when the manifest has the fingerprint and every image its CRC-32:
where it is, the copy is whole. One process of a node copies, the others wait for it.

The only module that knows fsspec.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import fsspec

from melanoma_dist import console
from melanoma_dist.data.manifest import DESCRIPTION, FILES, load_dataset, parse_description
from melanoma_dist.data.shards import verify
from melanoma_dist.errors import ConfigError, DataError, MelanomaDistError
from melanoma_dist.storage import atomic
from melanoma_dist.storage.locks import turn_at

_SHARD = re.compile(r"shard-\d+\.tar")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_BLOCK = 8 * 2**20  # bytes read at a time
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}
_FULL = (errno.ENOSPC, errno.EDQUOT)

Tell = Callable[[str], None]


def cache_folder() -> Path:
    """Where to keep what can be had again: ``$MELANOMA_DIST_CACHE``, or ``melanoma-dist`` in the user's cache."""
    chosen = os.environ.get("MELANOMA_DIST_CACHE")
    usual = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(chosen) if chosen else Path(usual) / "melanoma-dist"


def is_remote(source: str) -> bool:
    """Whether a ``--data`` is the URL of a data set, which every node copies for itself."""
    return "://" in source


def everywhere(source: str | None, folder: Path) -> str:
    """What names a data set on every node: its URL, or the absolute path of the ``folder`` that it was read from."""
    return source if source is not None and is_remote(source) else str(folder.resolve())


def local_copy(source: str, fingerprint: str | None = None, tell: Tell = console.say) -> Path:
    """The folder of a data set on this machine: a local ``source`` as it is, a URL's own copy, made if it is not there.

    With the ``fingerprint`` that is expected, a copy that is there is found without asking the storage. ``tell`` hears
    why it takes time. Raises ConfigError when the URL cannot be read, DataError when the copy cannot be kept or is not
    whole.
    """
    if not is_remote(source):
        return Path(source)
    url = source.rstrip("/")
    if fingerprint is not None and _home(url, fingerprint).is_dir():
        return _home(url, fingerprint)
    remote = _Remote(url)
    home = _home(url, remote.fingerprint())
    if not home.is_dir():
        with _keeping(home.parent):
            home.parent.mkdir(parents=True, exist_ok=True)
            waiting = f"another process copies {url} to this machine; waiting for it"
            with turn_at(home.with_name(f"{home.name}.lock"), lambda: tell(waiting)):
                if not home.is_dir():  # it may have come in the meantime
                    _copy(remote, home, tell)
    return home


def _home(url: str, fingerprint: str) -> Path:
    return cache_folder() / "copies" / f"{url.rpartition('/')[2]}-{fingerprint[:16]}"


def _copy(remote: _Remote, home: Path, tell: Tell) -> None:
    """Copy what lacks, prove the whole, give it its name."""
    aside = home.with_name(f"{home.name}.part")
    aside.mkdir(exist_ok=True)
    sizes = remote.sizes()
    missing = {name: size for name, size in sizes.items() if _size(aside / name) != size}
    needed, total = sum(missing.values()), sum(sizes.values())
    _require_room(home, remote.url, needed)
    tell(f"copying {remote.url} to {home} ({console.size(needed)}, once on this machine)")
    with console.byte_progress(total - needed, total, "copying") as on_bytes:
        for name, size in missing.items():
            _fetch(remote, name, size, aside / name, on_bytes)
    try:
        verify(load_dataset(aside))
    except DataError as error:
        shutil.rmtree(aside)
        raise DataError(
            f"--data {remote.url}: its copy is not a whole data set, and was deleted ({error}) "
            "Copy the prepared folder into the storage again."
        ) from error
    aside.rename(home)


def _size(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _require_room(home: Path, url: str, needed: int) -> None:
    free = shutil.disk_usage(home.parent).free
    if needed > free:
        raise DataError(
            f"--data {url}: its copy needs {console.size(needed)} in {home.parent}, and {console.size(free)} are free. "
            "Make room, or set MELANOMA_DIST_CACHE to a folder on another disk."
        )


def _fetch(remote: _Remote, name: str, size: int, target: Path, on_bytes: Callable[[int], None]) -> None:
    """Copy one file, whole or not at all."""

    def write(aside: Path) -> None:
        with aside.open("wb") as file:
            for block in remote.blocks(name):
                file.write(block)
                on_bytes(len(block))
        if aside.stat().st_size != size:
            raise DataError(
                f"--data {remote.url}: {name} has {size} bytes there, and {aside.stat().st_size} came. "
                "Give the same command again: files that came whole are kept."
            )

    atomic.write_file(target, write)


class _Remote:
    """A prepared folder in a storage that fsspec reads."""

    def __init__(self, url: str) -> None:
        self.url = url
        with self._reading(""):
            self._files, self._root = fsspec.core.url_to_fs(url)

    def fingerprint(self) -> str:
        """The fingerprint that its ``dataset.json`` names."""
        with self._reading(DESCRIPTION):
            content = self._files.cat_file(f"{self._root}/{DESCRIPTION}")
        found = str(parse_description(content, f"{self.url}/{DESCRIPTION}")["fingerprint"])
        if not _FINGERPRINT.fullmatch(found):  # it names a folder
            raise DataError(f"{self.url}/{DESCRIPTION}: its fingerprint is none: {found!r}. Copy the file again.")
        return found

    def sizes(self) -> dict[str, int]:
        """The files of the data set, with their bytes."""
        with self._reading(""):
            entries = self._files.ls(self._root, detail=True)
        sizes = {entry["name"].rpartition("/")[2]: entry["size"] for entry in entries if entry["type"] == "file"}
        return {name: int(size) for name, size in sizes.items() if name in FILES or _SHARD.fullmatch(name)}

    def blocks(self, name: str) -> Iterator[bytes]:
        """The bytes of a file, in order."""
        with self._reading(name):
            file: BinaryIO
            with self._files.open(f"{self._root}/{name}", "rb") as file:
                while block := file.read(_BLOCK):
                    yield block

    @contextmanager
    def _reading(self, name: str) -> Iterator[None]:
        """Turn what the storage's own library raises, of whatever class, into one message."""
        try:
            yield
        except MelanomaDistError:
            raise
        except Exception as error:
            rule, remedy = _diagnosis(error, self.url, f"{self.url}/{name}")
            raise ConfigError.of("data", self.url, rule, remedy) from error


def _diagnosis(error: Exception, url: str, what: str) -> tuple[str, str]:
    """What is wrong, and what to do about it."""
    said = (str(error).splitlines() or [""])[0] or type(error).__name__
    if isinstance(error, ImportError):
        package = _PACKAGES.get(url.partition("://")[0], said)
        return (
            f"a package is missing that reads such storage ({package})",
            f"Install it on every node: pip install {package}",
        )
    if isinstance(error, ValueError):
        return f"is not the URL of a storage ({said})", "Give s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or a local folder."
    if isinstance(error, FileNotFoundError):
        remedy = f"Check bucket and folder; {DESCRIPTION} must lie in it, as `data prepare` leaves it."
        return f"there is no {what}", remedy
    if isinstance(error, PermissionError) or "credential" in f"{type(error).__name__} {said}".lower():
        remedy = "Give this machine's account leave to list the bucket and read its files, or set its credentials."
        return f"there is no access ({type(error).__name__}: {said})", remedy
    return f"{what} cannot be read ({type(error).__name__}: {said})", "Check the network, then give the command again."


@contextmanager
def _keeping(folder: Path) -> Iterator[None]:
    """Turn what the local disk refuses into a DataError."""
    try:
        yield
    except OSError as error:
        what = "The disk is full: make room" if error.errno in _FULL else "Mend that"
        raise DataError(
            f"{error.filename or folder}: the data cannot be copied to this machine ({error.strerror or error}). "
            f"{what}, or set MELANOMA_DIST_CACHE to another folder on a local disk."
        ) from error

"""Copy a prepared data set from object storage to a local disk, once per node, and verify it there.

A copy lies in ``<cache>/copies/<name>-<fingerprint>``. Changed data has another fingerprint and gets another folder.
Files are copied one by one into a temporary folder, and each takes its name once it is complete, so that a killed copy
resumes after its last complete file. The folder takes its final name once the manifest has the fingerprint and every
image its CRC-32; a folder with that name is therefore complete. One process of a node copies, the others wait for it.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from melanoma_dist import console
from melanoma_dist.config.places import expanded
from melanoma_dist.data.manifest import DESCRIPTION, FILES, load_dataset, parse_description
from melanoma_dist.data.shards import verify
from melanoma_dist.errors import ConfigError, DataError, MelanomaDistError
from melanoma_dist.storage import atomic
from melanoma_dist.storage.locks import wait_for_lock
from melanoma_dist.storage.remote import RemoteFolder

_SHARD = re.compile(r"shard-\d+\.tar")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_PACKAGES = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "az": "adlfs"}
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)

Log = Callable[[str], None]


def cache_folder() -> Path:
    """Return the folder for reproducible files: ``$MELANOMA_DIST_CACHE``, or ``melanoma-dist`` in the user's cache."""
    chosen = os.environ.get("MELANOMA_DIST_CACHE")
    usual = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return expanded("MELANOMA_DIST_CACHE", chosen) if chosen else Path(usual) / "melanoma-dist"


def is_remote(source: str) -> bool:
    """Whether ``--data`` is a URL, from which every node makes its own copy."""
    return "://" in source


def resolve_source(source: str | None, folder: Path) -> str:
    """Return the name of a data set that is valid on every node: its URL, or the absolute path of its ``folder``."""
    return source if source is not None and is_remote(source) else str(folder.resolve())


def local_copy(source: str, fingerprint: str | None = None, log: Log = console.info) -> Path:
    """Return the folder of a data set on this machine: a local ``source`` as it is, or the copy of a URL.

    The copy is made if it is missing. With the expected ``fingerprint``, an existing copy is found without any request
    to the storage. ``log`` gets a message when this takes time. Raises ConfigError if the URL cannot be read,
    DataError if the copy cannot be written or is incomplete.
    """
    if not is_remote(source):
        return Path(source)
    url = source.rstrip("/")
    if fingerprint is not None and _copy_folder(url, fingerprint).is_dir():
        return _copy_folder(url, fingerprint)
    remote = _RemoteDataset(url)
    target = _copy_folder(url, remote.fingerprint())
    if not target.is_dir():
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            waiting = f"another process copies {url} to this machine; waiting for it"
            with wait_for_lock(target.with_name(f"{target.name}.lock"), lambda: log(waiting)):
                if not target.is_dir():  # the other process may have made it
                    _copy(remote, target, log)
        except OSError as error:
            remedy = "The disk is full: free some space" if error.errno in _DISK_FULL else "Fix that"
            raise DataError(
                f"{error.filename or target.parent}: the data cannot be copied to this machine "
                f"({error.strerror or error}). {remedy}, or set MELANOMA_DIST_CACHE to another folder on a local disk."
            ) from error
    return target


def _copy_folder(url: str, fingerprint: str) -> Path:
    return cache_folder() / "copies" / f"{url.rpartition('/')[2]}-{fingerprint[:16]}"


def _copy(remote: _RemoteDataset, target: Path, log: Log) -> None:
    """Copy the missing files, verify the data set, then give the folder its name."""
    aside = target.with_name(f"{target.name}.part")
    aside.mkdir(exist_ok=True)
    sizes = remote.sizes()
    present = {path.name: path.stat().st_size for path in aside.iterdir() if path.is_file()}
    missing = {name: size for name, size in sizes.items() if present.get(name) != size}
    needed, total = sum(missing.values()), sum(sizes.values())
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise DataError(
            f"--data {remote.url}: its copy needs {console.size(needed)} in {target.parent}, but {console.size(free)} "
            "are free. Free some space, or set MELANOMA_DIST_CACHE to a folder on another disk."
        )
    log(f"copying {remote.url} to {target} ({console.size(needed)}, once on this machine)")
    with console.byte_progress(total - needed, total, "copying") as on_bytes:
        for name, size in missing.items():
            _fetch(remote, name, size, aside / name, on_bytes)
    try:
        verify(load_dataset(aside))
    except DataError as error:
        shutil.rmtree(aside)
        raise DataError(
            f"--data {remote.url}: its copy is not a complete data set, and was deleted ({error}) "
            "Copy the prepared folder into the storage again."
        ) from error
    aside.rename(target)


def _fetch(remote: _RemoteDataset, name: str, size: int, target: Path, on_bytes: Callable[[int], None]) -> None:
    """Copy one file atomically."""

    def write(aside: Path) -> None:
        with aside.open("wb") as file:
            for block in remote.read_blocks(name):
                file.write(block)
                on_bytes(len(block))
        if aside.stat().st_size != size:
            raise DataError(
                f"--data {remote.url}: {name} has {size} bytes there, but {aside.stat().st_size} arrived. "
                "Run the same command again: complete files are kept."
            )

    atomic.write_file(target, write)


class _RemoteDataset:
    """A prepared data set in remote storage. Every error of the storage's library becomes one ConfigError."""

    def __init__(self, url: str) -> None:
        self.url = url
        with self._storage_errors(""):
            self._folder = RemoteFolder(url)

    def fingerprint(self) -> str:
        """Read the fingerprint from ``dataset.json``."""
        with self._storage_errors(DESCRIPTION):
            content = b"".join(self._folder.read_blocks(DESCRIPTION))
        fingerprint = str(parse_description(content, f"{self.url}/{DESCRIPTION}").fingerprint)
        if not _FINGERPRINT.fullmatch(fingerprint):  # the local folder is named after it
            raise DataError(
                f"{self.url}/{DESCRIPTION}: fingerprint {fingerprint!r} must be 64 hexadecimal digits. "
                "Copy the file into the storage again."
            )
        return fingerprint

    def sizes(self) -> dict[str, int]:
        """Return the bytes of each file of the data set, by name."""
        with self._storage_errors(""):
            sizes = self._folder.sizes()
        return {name: size for name, size in sizes.items() if name in FILES or _SHARD.fullmatch(name)}

    def read_blocks(self, name: str) -> Iterator[bytes]:
        """Yield the bytes of a file in order."""
        with self._storage_errors(name):
            yield from self._folder.read_blocks(name)

    @contextmanager
    def _storage_errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except MelanomaDistError:
            raise
        except Exception as error:
            rule, remedy = _diagnose(error, self.url, f"{self.url}/{name}")
            raise ConfigError.of("data", self.url, rule, remedy) from error


def _diagnose(error: Exception, url: str, file: str) -> tuple[str, str]:
    """Return what is wrong, and what to do about it."""
    text = (str(error).splitlines() or [""])[0] or type(error).__name__
    if isinstance(error, ImportError):
        package = _PACKAGES.get(url.partition("://")[0], text)
        return (
            f"a package is missing that reads such storage ({package})",
            f"Install it on every node: pip install {package}",
        )
    if isinstance(error, ValueError):
        return f"is not the URL of a storage ({text})", "Give s3://BUCKET/FOLDER, gs://BUCKET/FOLDER or a local folder."
    if isinstance(error, FileNotFoundError):
        remedy = f"Check bucket and folder; it must hold {DESCRIPTION}, as `data prepare` writes it."
        return f"there is no {file}", remedy
    if isinstance(error, PermissionError) or "credential" in f"{type(error).__name__} {text}".lower():
        remedy = "Allow this machine's account to list the bucket and read its files, or set its credentials."
        return f"access is denied ({type(error).__name__}: {text})", remedy
    return f"{file} cannot be read ({type(error).__name__}: {text})", "Check the network, then run the command again."

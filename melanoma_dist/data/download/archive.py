"""Unpack an archive from the internet: all of it, or nothing; and nothing outside its folder.

Names, kinds and counts are refused before anything is written. Sizes are counted on the bytes that come out, since what
an archive says of itself may be a lie. Everything goes into a folder beside the target, which takes the target's name
when the last checksum was right.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from melanoma_dist.errors import DataError

_CHUNK = 1 << 20
_LONGEST_NAME = 255  # bytes
_LONGEST_PATH = 1024  # bytes
_DEEPEST = 16  # folders
_LONGEST_ENTRY = 512  # bytes of a member in the list at the end of an archive, on average
_COMPRESSIONS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
# What zipfile and zlib raise on bytes that are not what they should be; OSError is the disk's.
_DAMAGE = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, RuntimeError)
# Superpixels of 2017 lie beside its images, one file for each, and are used by nobody here.
_UNWANTED = re.compile(r"(.*/)?(__MACOSX/.*|\.DS_Store|[^/]*_superpixels\.png)", re.IGNORECASE)


class CorruptArchive(DataError):
    """The bytes are no whole archive: to be fetched again."""


@dataclass(frozen=True)
class Limits:
    """What an archive may hold at most."""

    members: int = 100_000
    bytes: int = 64 * 10**9
    """Of all members together, unpacked."""
    ratio: int = 200
    """Bytes unpacked per byte of the archive."""


@dataclass(frozen=True)
class Contents:
    """What lies in an unpacked folder."""

    files: int
    bytes: int


@contextmanager
def unpacked(
    archive: Path,
    target: Path,
    name: str = "",
    limits: Limits = Limits(),
    check: Callable[[], None] = lambda: None,
) -> Iterator[Path]:
    """Unpack a zip file into a folder; the end of the block moves it to ``target``, which must not exist or be empty.

    Folders around everything are dropped. ``check`` is called before each member and ends the work by raising.
    Raises DamagedFile for bytes that are no zip file or fail a checksum, DataError for an archive that is refused
    (``name`` is what the message calls it), OSError from the disk. After any error there is nothing at ``target``.
    """
    with _moved_when_done(target) as folder:
        _unpack(archive, folder, name or archive.name, limits, check)
        yield folder


def _unpack(archive: Path, folder: Path, name: str, limits: Limits, check: Callable[[], None]) -> None:
    with _told(name):
        _require_short_directory(archive, name, limits)
    with _told(name), zipfile.ZipFile(archive) as opened:
        if any(info.header_offset < 0 for info in opened.infolist()):
            raise zipfile.BadZipFile("its beginning is missing")
        members = _accepted(opened, name, limits)
        allowed = min(limits.bytes, limits.ratio * archive.stat().st_size)
        for path, info in members.items():
            check()
            allowed -= _write(opened, info, folder / path, allowed, name)


def _require_short_directory(archive: Path, name: str, limits: Limits) -> None:
    """Refuse a list of members that would fill the memory before they could be counted: zipfile reads it whole."""
    with archive.open("rb") as file:
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    if end and end[zipfile._ECD_SIZE] > limits.members * _LONGEST_ENTRY:  # type: ignore[attr-defined]
        raise _refused(name, f"its list of members is longer than {limits.members} take")


def contents(folder: Path) -> Contents:
    """Count the files of an unpacked folder, without those that systems and nobody else put there."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != ".DS_Store"]
    return Contents(len(sizes), sum(sizes))


@contextmanager
def _told(name: str) -> Iterator[None]:
    try:
        yield
    except DataError:  # a refusal; what is below is damage
        raise
    except _DAMAGE as error:
        raise CorruptArchive(f"{name}: is not a whole zip file ({error or type(error).__name__}).") from error


def _refused(name: str, why: str) -> DataError:
    return DataError(f"{name}: refused, {why}. Nothing was unpacked. Get it from the challenge's own site.")


def _accepted(opened: zipfile.ZipFile, name: str, limits: Limits) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """The members to write by where they go."""
    if len(opened.infolist()) > limits.members:
        raise _refused(name, f"it has {len(opened.infolist())} members, more than {limits.members}")
    for info in opened.infolist():
        if why := _fault(info):
            raise _refused(name, f"its member {info.orig_filename!r} {why}")
    wanted = [info for info in opened.infolist() if not info.is_dir() and not _UNWANTED.fullmatch(info.filename)]
    if not wanted:
        raise _refused(name, "it holds no files")
    _require_distinct(name, wanted)
    paths = [PurePosixPath(info.filename) for info in wanted]
    around = len(os.path.commonpath([path.parent for path in paths]).split("/")) if _shares_folder(paths) else 0
    return {PurePosixPath(*path.parts[around:]): info for path, info in zip(paths, wanted, strict=True)}


def _shares_folder(paths: list[PurePosixPath]) -> bool:
    return len({path.parts[0] for path in paths}) == 1 and all(len(path.parts) > 1 for path in paths)


def _fault(info: zipfile.ZipInfo) -> str:
    """Why a member must not be unpacked; empty if it may. The raw name is judged: zipfile mends some."""
    raw = info.orig_filename
    kind = stat.S_IFMT(info.external_attr >> 16)
    if "\\" in raw or "\0" in raw or raw.startswith("/") or re.match(r"[A-Za-z]:", raw):
        return "has a name that is not relative to the archive"
    if not {"", ".", ".."}.isdisjoint(raw.removesuffix("/").split("/")):
        return "has a name that leads elsewhere"
    if any(len(part.encode(errors="replace")) > _LONGEST_NAME for part in raw.split("/")):
        return "has a name longer than disks allow"
    if len(raw.encode(errors="replace")) > _LONGEST_PATH or raw.count("/") > _DEEPEST:
        return "lies deeper than folders go"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is neither a file nor a folder"
    if info.flag_bits & 0x1:
        return "is encrypted"
    if info.compress_type not in _COMPRESSIONS:
        return "is compressed in a way that no official archive uses"
    return ""


def _require_distinct(name: str, members: list[zipfile.ZipInfo]) -> None:
    """No two files of one name, also where a file system ignores case, and no file that is a folder of another."""
    seen: set[str] = set()
    for info in members:
        if (key := info.filename.casefold()) in seen:
            raise _refused(name, f"it has two members {info.filename!r}")
        seen.add(key)
    for info in members:
        if any(str(parent).casefold() in seen for parent in PurePosixPath(info.filename).parents):
            raise _refused(name, f"its member {info.filename!r} lies in another file")


@contextmanager
def _moved_when_done(target: Path) -> Iterator[Path]:
    """A new folder beside ``target`` that takes its name at the end, or is removed with everything in it."""
    folder = target.with_name(f".{target.name}.unpacking")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
        folder.rename(target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _write(opened: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, allowed: int, name: str) -> int:
    """Write one member of at most ``allowed`` bytes; reading to the end checks its CRC. Returns its bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    written = 0
    with opened.open(info) as source, path.open("xb") as sink:
        while chunk := source.read(_CHUNK):
            written += len(chunk)
            if written > allowed:
                raise _refused(name, "it unpacks to more than a real one could (a zip bomb?)")
            sink.write(chunk)
    return written

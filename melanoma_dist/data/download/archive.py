"""Unpack an untrusted archive: all of it or nothing, and nothing outside its folder.

Names, types and counts are checked before anything is written. Sizes are counted on the unpacked bytes, because the
sizes in the archive may be false. Everything goes into a temporary folder beside the target, which takes the target's
name after the last checksum.
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
_MAX_NAME_BYTES = 255
_MAX_PATH_BYTES = 1024
_MAX_DEPTH = 16  # folders
_MAX_ENTRY_BYTES = 512  # of a member in the central directory, on average
_COMPRESSIONS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
# What zipfile and zlib raise on corrupt bytes; OSError comes from the disk.
_CORRUPTION = (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, RuntimeError)
# The archives of 2017 hold a superpixel file beside each image, which nothing here uses.
_IGNORED = re.compile(r"(.*/)?(__MACOSX/.*|\.DS_Store|[^/]*_superpixels\.png)", re.IGNORECASE)


class CorruptArchive(DataError):
    """The bytes are not a complete archive; fetching them again may help."""


@dataclass(frozen=True)
class Limits:
    """What an archive may hold at most."""

    members: int = 100_000
    bytes: int = 64 * 10**9
    """Of all members together, unpacked."""
    ratio: int = 200
    """Unpacked bytes per byte of the archive."""


@dataclass(frozen=True)
class FolderSize:
    """What lies in an unpacked folder."""

    files: int
    bytes: int


@contextmanager
def unpack(
    archive: Path,
    target: Path,
    name: str = "",
    limits: Limits = Limits(),
    check: Callable[[], None] = lambda: None,
) -> Iterator[Path]:
    """Unpack a zip file into a temporary folder, and rename it to ``target`` at the end of the block.

    ``target`` must be missing or empty. Folders around everything are dropped. ``check`` is called before each member
    and may raise to stop. Messages call the archive ``name``. Raises CorruptArchive if the bytes are not a zip file or
    fail a checksum, DataError if the archive is refused, OSError from the disk. An error leaves ``target`` unchanged.
    """
    name = name or archive.name
    with _replacing(target) as folder:
        try:
            _require_short_directory(archive, name, limits)
            with zipfile.ZipFile(archive) as opened:
                if any(info.header_offset < 0 for info in opened.infolist()):
                    raise zipfile.BadZipFile("its beginning is missing")
                members = _accept_members(opened, name, limits)
                allowed = min(limits.bytes, limits.ratio * archive.stat().st_size)
                for path, info in members.items():
                    check()
                    allowed -= _write_member(opened, info, folder / path, allowed, name)
        except _CORRUPTION as error:
            raise CorruptArchive(f"{name}: is not a complete zip file ({error or type(error).__name__}).") from error
        yield folder


def _require_short_directory(archive: Path, name: str, limits: Limits) -> None:
    """Refuse a central directory that would fill the memory: zipfile reads all of it before it can be counted."""
    with archive.open("rb") as file:
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
    if end and end[zipfile._ECD_SIZE] > limits.members * _MAX_ENTRY_BYTES:  # type: ignore[attr-defined]
        raise _refusal(name, f"its directory is longer than {limits.members} members need")


def folder_size(folder: Path) -> FolderSize:
    """Measure an unpacked folder, without the files that macOS adds."""
    sizes = [path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.name != ".DS_Store"]
    return FolderSize(len(sizes), sum(sizes))


def _refusal(name: str, why: str) -> DataError:
    return DataError(f"{name}: refused, {why}. Nothing was unpacked. Get it from the challenge's own site.")


def _accept_members(opened: zipfile.ZipFile, name: str, limits: Limits) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """Check all members, and map the paths to write to the members that are not ignored."""
    if len(opened.infolist()) > limits.members:
        raise _refusal(name, f"it has {len(opened.infolist())} members, more than {limits.members}")
    for info in opened.infolist():
        if why := _violation(info):
            raise _refusal(name, f"its member {info.orig_filename!r} {why}")
    members = [info for info in opened.infolist() if not info.is_dir() and not _IGNORED.fullmatch(info.filename)]
    if not members:
        raise _refusal(name, "it holds no files")
    _require_distinct(name, members)
    paths = [PurePosixPath(info.filename) for info in members]
    in_one_folder = len({path.parts[0] for path in paths}) == 1 and all(len(path.parts) > 1 for path in paths)
    around = len(os.path.commonpath([path.parent for path in paths]).split("/")) if in_one_folder else 0
    return {PurePosixPath(*path.parts[around:]): info for path, info in zip(paths, members, strict=True)}


def _violation(info: zipfile.ZipInfo) -> str:
    """Return why a member must not be unpacked, or "". Checks the raw name, because zipfile rewrites some."""
    raw = info.orig_filename
    kind = stat.S_IFMT(info.external_attr >> 16)
    if "\\" in raw or "\0" in raw or raw.startswith("/") or re.match(r"[A-Za-z]:", raw):
        return "has a name that is not relative to the archive"
    if not {"", ".", ".."}.isdisjoint(raw.removesuffix("/").split("/")):
        return "has a name that leads outside"
    if any(len(part.encode(errors="replace")) > _MAX_NAME_BYTES for part in raw.split("/")):
        return "has a name longer than file systems allow"
    if len(raw.encode(errors="replace")) > _MAX_PATH_BYTES or raw.count("/") > _MAX_DEPTH:
        return "is nested too deeply"
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is neither a file nor a folder"
    if info.flag_bits & 0x1:
        return "is encrypted"
    if info.compress_type not in _COMPRESSIONS:
        return "is compressed in a way that no official archive uses"
    return ""


def _require_distinct(name: str, members: list[zipfile.ZipInfo]) -> None:
    """Refuse two files of one name, even if only the case differs, and a file that is the folder of another."""
    names: set[str] = set()
    for info in members:
        if (key := info.filename.casefold()) in names:
            raise _refusal(name, f"it has two members {info.filename!r}")
        names.add(key)
    for info in members:
        if any(str(parent).casefold() in names for parent in PurePosixPath(info.filename).parents):
            raise _refusal(name, f"its member {info.filename!r} lies in another file")


@contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """Make a folder beside ``target`` and rename it at the end; after an error, delete it with everything in it."""
    folder = target.with_name(f".{target.name}.unpacking")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
        folder.rename(target)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _write_member(opened: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path, allowed: int, name: str) -> int:
    """Write one member of at most ``allowed`` bytes and return its size. Reading to the end checks its CRC."""
    path.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with opened.open(info) as source, path.open("xb") as sink:
        while chunk := source.read(_CHUNK):
            size += len(chunk)
            if size > allowed:
                raise _refusal(name, "it unpacks to more than a real one could (a zip bomb?)")
            sink.write(chunk)
    return size

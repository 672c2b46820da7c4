"""Files and folders that are whole or not there, whatever moment the power fails at.

    one file     written aside, flushed; renamed; its folder flushed
    a folder     files written aside, flushed, hashed; the manifest last, flushed; renamed; the folder around it flushed

What has its final name is therefore complete and on the disk. What an interrupted write left aside is removed by the
next one. Nothing is ordered by time: clocks may go backwards.

A folder that replaces one of the same name moves that out of the way first. A kill between the two renames leaves the
old one there, where ``standing`` finds it, so that there is no moment with neither.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Collection
from pathlib import Path

MANIFEST = "manifest.json"
"""Which files a committed folder holds: ``{"files": {name: sha256}}``."""
_LARGEST_MANIFEST = 2**20  # bytes; ours have some hundred
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ASIDE, _REPLACED = ".tmp", ".old"
_CANNOT_FLUSH_FOLDERS = (errno.EINVAL, errno.ENOTSUP)  # the answer of some network file systems

Write = Callable[[Path], object]


def write_file(path: Path, write: Write) -> None:
    """Make a file with ``write``, which is given the path to write to. Raises what ``write`` raises, and OSError."""
    aside = path.with_name(path.name + _ASIDE)
    try:
        write(aside)
        adopt(aside, path)
    except Exception:
        aside.unlink(missing_ok=True)
        raise


def adopt(aside: Path, path: Path) -> None:
    """Give a file that is written to its end the name ``path``, in the same folder, when its bytes are on the disk."""
    _flush(aside)
    os.replace(aside, path)
    _flush_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Make a file of a text, in UTF-8."""
    write_file(path, lambda aside: aside.write_bytes(text.encode()))


def write_folder(folder: Path, write: Write) -> None:
    """Make a folder with ``write``, which is given an empty one to put files into.

    Only one process at a time may write beside ``folder``, and only committed folders lie there. Raises what ``write``
    raises, and OSError; what was there before is then intact.
    """
    _make(folder.parent)
    settle(folder.parent)
    aside, replaced = _hidden(folder, _ASIDE), _hidden(folder, _REPLACED)
    try:
        aside.mkdir()
        write(aside)
        _seal(aside)
        if folder.exists():
            os.rename(folder, replaced)
        os.rename(aside, folder)
    except Exception:
        settle(folder.parent)
        raise
    _flush_folder(folder.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Delete a committed folder: all of it at once, for whoever looks."""
    aside = _hidden(folder, _ASIDE)
    shutil.rmtree(aside, ignore_errors=True)
    os.rename(folder, aside)
    shutil.rmtree(aside, ignore_errors=True)


def settle(parent: Path) -> None:
    """Undo what was interrupted among the folders in ``parent``: only whole ones stay, under their own names."""
    for replaced in parent.glob(f".*{_REPLACED}"):
        if _plain(replaced, _REPLACED).exists():
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            os.rename(replaced, _plain(replaced, _REPLACED))
    for aside in parent.glob(f".*{_ASIDE}"):
        shutil.rmtree(aside, ignore_errors=True)


def standing(parent: Path, pattern: str) -> dict[str, Path]:
    """The committed folders in ``parent`` whose names match, in the order of names; and where a kill left each."""
    found = {path.name: path for path in parent.glob(pattern)}
    for replaced in parent.glob(f".{pattern}{_REPLACED}"):
        found.setdefault(_plain(replaced, _REPLACED).name, replaced)
    return dict(sorted(found.items()))


def damage(folder: Path, needed: Collection[str] = ()) -> str | None:
    """What is wrong with a committed folder, or None: its manifest, or a file that is not the one that was written.

    ``needed`` are files that must be among those of the manifest. Nothing outside the folder is looked at.
    """
    try:
        files = manifest(folder)
        if missing := sorted(set(needed) - set(files)):
            return f"{MANIFEST} does not name {missing[0]}"
        changed = [name for name, digest in files.items() if sha256(folder / name) != digest]
    except ValueError as error:
        return f"{MANIFEST} {error}"
    except OSError as error:
        return f"{Path(error.filename or folder).name} cannot be read ({error.strerror or error})"
    return f"{changed[0]} is not what was written" if changed else None


def manifest(folder: Path) -> dict[str, str]:
    """The sha256 of each file of a committed folder, by name, as its manifest says.

    Raises ValueError for one that ``write_folder`` cannot have written, OSError for one that cannot be read.
    """
    path = folder / MANIFEST
    with _regular(path).open("rb") as file:
        content = file.read(_LARGEST_MANIFEST + 1)
    if len(content) > _LARGEST_MANIFEST:
        raise ValueError("is larger than any that was written")
    try:
        told = json.loads(content.decode())
    except (ValueError, RecursionError):
        raise ValueError("is no JSON") from None
    files = told.get("files") if isinstance(told, dict) else None
    if not isinstance(files, dict) or not files:
        raise ValueError("names no files")
    for name, digest in files.items():
        if not _is_plain_name(name):
            raise ValueError(f"names {name[:80]!r}, which is no file of its folder")
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise ValueError(f"has no hash of {name}")
    return files


def sha256(path: Path) -> str:
    """The hash of a file's bytes. Raises OSError for what is no regular file: a pipe would be read for ever."""
    with _regular(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seal(aside: Path) -> None:
    """Flush and hash the files of a folder, then write its manifest."""
    files = {}
    for path in sorted(aside.iterdir()):
        _flush(path)
        files[path.name] = sha256(path)
    (aside / MANIFEST).write_text(json.dumps({"files": files}, indent=1) + "\n")
    _flush(aside / MANIFEST)
    _flush_folder(aside)


def _make(folder: Path) -> None:
    if not folder.is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        _flush_folder(folder.parent)


def _hidden(folder: Path, suffix: str) -> Path:
    return folder.with_name(f".{folder.name}{suffix}")


def _plain(hidden: Path, suffix: str) -> Path:
    return hidden.with_name(hidden.name.removeprefix(".").removesuffix(suffix))


def _is_plain_name(name: str) -> bool:
    return Path(name).name == name and name not in ("", "..", MANIFEST) and "\0" not in name


def _regular(path: Path) -> Path:
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise OSError(errno.EINVAL, "no regular file", str(path))
    return path


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    try:
        _flush(folder)
    except OSError as error:
        if error.errno not in _CANNOT_FLUSH_FOLDERS:
            raise

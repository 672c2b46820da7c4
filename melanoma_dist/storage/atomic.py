"""Atomic writes: after a power cut at any moment, a file or folder is either complete or absent.

    one file     write aside, fsync; rename; fsync the folder around it
    a folder     write the files aside, fsync and hash them; write the manifest last, fsync; rename; fsync the parent
    a tree       write it aside, fsync; rename; fsync the parent

Whatever has its final name is therefore complete and on the disk. The next write removes what an interrupted one left
aside. Nothing is ordered by time, because clocks may go backwards.

A new folder of the same name replaces the old one by two renames: the old one moves out of the way first. A kill
between the two leaves the old one under its hidden name, where ``committed_folders`` finds it. One of the two is
therefore always readable.
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
"""Lists the files of a committed folder: ``{"files": {name: sha256}}``."""
_MAX_MANIFEST_BYTES = 2**20  # ours have some hundred
_SHA256 = re.compile(r"[0-9a-f]{64}")
_ASIDE, _REPLACED = ".tmp", ".old"
_CANNOT_FSYNC_FOLDERS = (errno.EINVAL, errno.ENOTSUP)  # what some network file systems answer

Write = Callable[[Path], object]


def write_file(path: Path, write: Write) -> None:
    """Create or replace a file: ``write`` gets the path to write to. Raises what ``write`` raises, and OSError."""
    aside = path.with_name(path.name + _ASIDE)
    try:
        write(aside)
        commit_file(aside, path)
    except Exception:
        aside.unlink(missing_ok=True)
        raise


def commit_file(aside: Path, path: Path) -> None:
    """Flush a completely written file to the disk, then rename it to ``path`` in the same folder."""
    _fsync(aside)
    os.replace(aside, path)
    _fsync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Create or replace a text file in UTF-8."""
    write_file(path, lambda aside: aside.write_bytes(text.encode()))


def write_folder(folder: Path, write: Write) -> None:
    """Create or replace a folder: ``write`` gets an empty folder and puts files into it.

    Only one process at a time may write beside ``folder``, and only committed folders may lie there. Raises what
    ``write`` raises, and OSError; the previous folder is then intact.
    """
    if not folder.parent.is_dir():
        folder.parent.mkdir(parents=True, exist_ok=True)
        _fsync_folder(folder.parent.parent)
    recover(folder.parent)
    aside, replaced = _hidden(folder, _ASIDE), _hidden(folder, _REPLACED)
    try:
        aside.mkdir()
        write(aside)
        _seal(aside)
        if folder.exists():
            os.rename(folder, replaced)
        os.rename(aside, folder)
    except Exception:
        recover(folder.parent)
        raise
    _fsync_folder(folder.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def write_tree(folder: Path, write: Write) -> None:
    """Create a folder with folders inside: ``write`` gets an empty folder and fills it.

    Raises what ``write`` raises, and OSError; then there is no such folder.
    """
    aside = _hidden(folder, _ASIDE)
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir()
        write(aside)
        for place, _, files in os.walk(aside):
            for name in files:
                _fsync(Path(place, name))
            _fsync_folder(Path(place))
        os.rename(aside, folder)
    except Exception:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    _fsync_folder(folder.parent)


def remove_folder(folder: Path) -> None:
    """Delete a committed folder: a reader sees all of it or nothing."""
    aside = _hidden(folder, _ASIDE)
    shutil.rmtree(aside, ignore_errors=True)
    os.rename(folder, aside)
    shutil.rmtree(aside, ignore_errors=True)


def recover(parent: Path) -> None:
    """Undo interrupted writes in ``parent``: afterwards it holds only complete folders, under their own names."""
    for replaced in parent.glob(f".*{_REPLACED}"):
        if _visible(replaced, _REPLACED).exists():
            shutil.rmtree(replaced, ignore_errors=True)
        else:
            os.rename(replaced, _visible(replaced, _REPLACED))
    for aside in parent.glob(f".*{_ASIDE}"):
        shutil.rmtree(aside, ignore_errors=True)


def committed_folders(parent: Path, pattern: str) -> dict[str, Path]:
    """Map the names that match ``pattern``, sorted, to committed folders, including those a kill left hidden."""
    folders = {path.name: path for path in parent.glob(pattern)}
    for replaced in parent.glob(f".{pattern}{_REPLACED}"):
        folders.setdefault(_visible(replaced, _REPLACED).name, replaced)
    return dict(sorted(folders.items()))


def integrity_error(folder: Path, required: Collection[str] = ()) -> str | None:
    """Return what is wrong with a committed folder, or None: a bad manifest, or a file with another hash.

    The manifest must list the files ``required``. Nothing outside the folder is read.
    """
    try:
        files = read_manifest(folder)
        if missing := sorted(set(required) - set(files)):
            return f"{MANIFEST} does not name {missing[0]}"
        changed = [name for name, digest in files.items() if sha256(folder / name) != digest]
    except ValueError as error:
        return f"{MANIFEST} {error}"
    except OSError as error:
        return f"{Path(error.filename or folder).name} cannot be read ({error.strerror or error})"
    return f"{changed[0]} is not what was written" if changed else None


def read_manifest(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file of a committed folder, by name, as its manifest lists them.

    Raises ValueError if ``write_folder`` cannot have written the manifest, OSError if it cannot be read.
    """
    path = folder / MANIFEST
    with _regular(path).open("rb") as file:
        content = file.read(_MAX_MANIFEST_BYTES + 1)
    if len(content) > _MAX_MANIFEST_BYTES:
        raise ValueError("is too large")
    try:
        tree = json.loads(content.decode())
    except (ValueError, RecursionError):
        raise ValueError("is not valid JSON") from None
    files = tree.get("files") if isinstance(tree, dict) else None
    if not isinstance(files, dict) or not files:
        raise ValueError("names no files")
    for name, digest in files.items():
        if Path(name).name != name or name in ("", "..", MANIFEST) or "\0" in name:
            raise ValueError(f"names {name[:80]!r}, which is not a file of its folder")
        if not isinstance(digest, str) or not _SHA256.fullmatch(digest):
            raise ValueError(f"has no hash of {name}")
    return files


def sha256(path: Path) -> str:
    """Return the hash of a file in hex. Raises OSError unless it is a regular file: reading a pipe would never end."""
    with _regular(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _seal(aside: Path) -> None:
    """Flush and hash the files of a folder, then write its manifest."""
    files = {}
    for path in sorted(aside.iterdir()):
        _fsync(path)
        files[path.name] = sha256(path)
    (aside / MANIFEST).write_text(json.dumps({"files": files}, indent=1) + "\n")
    _fsync(aside / MANIFEST)
    _fsync_folder(aside)


def _hidden(folder: Path, suffix: str) -> Path:
    return folder.with_name(f".{folder.name}{suffix}")


def _visible(hidden: Path, suffix: str) -> Path:
    return hidden.with_name(hidden.name.removeprefix(".").removesuffix(suffix))


def _regular(path: Path) -> Path:
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return path


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _fsync_folder(folder: Path) -> None:
    try:
        _fsync(folder)
    except OSError as error:
        if error.errno not in _CANNOT_FSYNC_FOLDERS:
            raise

"""Download the challenges' files to where `data prepare` reads them: `data download`.

Inspects the raw folder, checks licences and free space, then downloads the missing files, a few at a time. A table
takes its name once it is complete. An archive is unpacked, recorded with its hash, and deleted, because few disks hold
both. An interrupted command leaves ``.part`` files; re-running it resumes from them.
"""

from __future__ import annotations

import errno
import shutil
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from melanoma_dist import console
from melanoma_dist.config.address import split_address
from melanoma_dist.config.data import DownloadConfig
from melanoma_dist.data.download.catalogue import official_files
from melanoma_dist.data.download.licences import require_acceptance, show_licences
from melanoma_dist.data.download.local_files import LocalFile, inspect, partial_file
from melanoma_dist.data.download.pool import DownloadPool
from melanoma_dist.data.download.transfer import DEFAULT_RETRIES, Credentials, RetryPolicy
from melanoma_dist.errors import DataError
from melanoma_dist.storage.locks import lock_folder

_THREADS = 4
_UNPACKED_PER_BYTE = 1.1
"""JPEG and PNG do not shrink in an archive, and tables are small."""


def download(config: DownloadConfig, policy: RetryPolicy = DEFAULT_RETRIES) -> None:
    """Download the missing files of ``config``; with ``config.list`` only list them.

    Raises ConfigError and DataError for what the user can fix (licences, free space, changed files), and DownloadError
    for files that could not be downloaded, after all others were.
    """
    raw = config.raw
    with _disk_errors(raw):
        address = split_address(config.base_url)
        official = official_files(config.years, config.parts, address.url)
        show_licences(official)
        files = [inspect(raw, file) for file in official]
        if config.list:
            _show_files(files)
            return
        for each in files:
            if each.state == "downloaded":
                console.info(f"{each.file.label}: unchanged since its download.")
            elif each.state == "provided":
                console.info(f"{each.file.label}: not downloaded, but there ({each.detail}); used as it is.")
        missing = [each for each in files if each.is_needed]
        require_acceptance(raw, [each.file for each in missing], config.accept_license)
        _require_space(raw, missing)
        raw.mkdir(parents=True, exist_ok=True)
        with lock_folder(raw, DataError(f"--raw {raw}: another download uses this folder. Wait for it, or stop it.")):
            for each in files:
                if each.state == "downloaded":  # a kill after unpacking leaves the archive
                    partial_file(raw, each.file).remove()
            _download_files(raw, missing, policy, address.auth)
    console.info(f"{raw}: all {len(official)} files are there.")


@contextmanager
def _disk_errors(raw: Path) -> Iterator[None]:
    """Convert errors of the disk to DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{error.filename or raw}: cannot be read or written ({error.strerror or error}). {_remedy(error)}, "
            "then run the same command again: downloaded bytes are kept."
        ) from error


def _remedy(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "The disk is full. Free some space"
    if error.errno == errno.EFBIG:
        return "The disk, or `ulimit -f`, allows no file of this size. Raise that limit, or choose another --raw"
    return "Fix that, or choose another --raw"


def _show_files(files: Sequence[LocalFile]) -> None:
    rows = []
    for file, each in ((each.file, each) for each in files):
        state = each.state + (f" ({each.detail})" if each.detail else "")
        rows.append((file.label, file.part, f"about {console.size(file.bytes)}", file.licence.short, state))
    console.table("Files", ("file", "part", "size", "licence", "state"), rows)
    missing = [each for each in files if each.is_needed]
    left = sum(max(0, each.file.bytes - each.bytes) for each in missing)
    console.info(f"to download: {len(missing)} of {len(files)} files, about {console.size(left)}.")


def _require_space(raw: Path, missing: Sequence[LocalFile]) -> None:
    """Require free space for all files, unpacked, and for the largest archive while it is unpacked."""
    unpacked = sum(int(m.file.bytes * _UNPACKED_PER_BYTE) if m.file.is_archive else m.file.bytes for m in missing)
    archive = max((m.file.bytes for m in missing if m.file.is_archive), default=0)
    present = sum(m.bytes for m in missing)
    needed = max(0, unpacked + archive - present)
    existing = next(folder for folder in (raw.absolute(), *raw.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise DataError(
            f"--raw {raw}: about {console.size(needed)} more are needed ({console.size(unpacked)} of files, and "
            f"{console.size(archive)} for an archive while it is unpacked; {console.size(present)} are there already), "
            f"but {console.size(free)} are free. Free some space, choose a --raw on another disk, or fewer --years or "
            "--parts."
        )


def _download_files(raw: Path, missing: Sequence[LocalFile], policy: RetryPolicy, auth: Credentials | None) -> None:
    """Download all files. Raises the only error, or one that lists all errors."""
    if not missing:
        return
    parts = {each.file: partial_file(raw, each.file) for each in missing}
    done = sum(part.size for part in parts.values())
    total = sum(max(file.bytes, part.size) for file, part in parts.items())
    with console.byte_progress(done, total, "downloading") as on_bytes:
        pool = DownloadPool(raw, policy, on_bytes, deque(parts), auth)
        pool.run(min(_THREADS, len(missing)))
    pool.raise_errors()

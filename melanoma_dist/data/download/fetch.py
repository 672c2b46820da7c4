"""The challenges' own files, from their server to where ``data prepare`` reads them: ``melanoma-dist data download``.

Look what is here, see to the licences and to room on the disk, then fetch what lacks, a few files at a time. A table
takes its name when all its bytes are here; an archive is unpacked, recorded with its hash, and removed, since both
together fit few disks. Whatever interrupts this leaves ``.part`` files, and the same command goes on from them.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from melanoma_dist import console
from melanoma_dist.config.address import split_address
from melanoma_dist.config.data import DownloadConfig
from melanoma_dist.data.download.catalogue import catalogue
from melanoma_dist.data.download.licences import require_acceptance, show_licences
from melanoma_dist.data.download.local_files import LocalFile, inspect, part_of
from melanoma_dist.data.download.pool import DownloadPool
from melanoma_dist.data.download.transfer import USUAL, Patience
from melanoma_dist.errors import DataError
from melanoma_dist.storage.locks import lock_folder

_THREADS = 4
_UNPACKED_PER_BYTE = 1.1
"""JPEG and PNG do not shrink in an archive, and tables are small."""


def download(config: DownloadConfig, patience: Patience = USUAL) -> None:
    """Bring what ``config`` names and is not there, or with ``config.list`` only tell it.

    Raises ConfigError and DataError for what the user can mend (licences, room, changed files), DownloadError for what
    did not come; other files have then been fetched all the same.
    """
    raw = config.raw
    with _disk(raw):
        address = split_address(config.base_url)
        items = catalogue(config.years, config.parts, address.url)
        show_licences(items)
        holdings = [inspect(raw, item) for item in items]
        if config.list:
            _show(holdings)
            return
        _tell_present(holdings)
        wanted = [holding for holding in holdings if holding.wanted]
        require_acceptance(raw, [holding.item for holding in wanted], config.accept_license)
        _require_room(raw, wanted)
        raw.mkdir(parents=True, exist_ok=True)
        with lock_folder(raw, DataError(f"--raw {raw}: another download is at work there. Wait for it, or stop it.")):
            _remove_leftovers(raw, holdings)
            _fetch(raw, wanted, patience, address.auth)
    console.info(f"{raw}: all {len(items)} files are there.")


@contextmanager
def _disk(raw: Path) -> Iterator[None]:
    """Turn what the disk refuses into a DataError."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{error.filename or raw}: cannot be read or written ({error.strerror or error}). {_remedy(error)}, "
            "then give the same command again: what has arrived is kept."
        ) from error


def _remedy(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "The disk is full. Make room"
    if error.errno == errno.EFBIG:
        return "The disk, or `ulimit -f`, allows no file of this size. Raise that limit, or choose another --raw"
    return "Mend that, or choose another --raw"


def _show(holdings: Sequence[LocalFile]) -> None:
    rows = [
        (
            holding.item.label,
            holding.item.part,
            f"about {console.size(holding.item.bytes)}",
            holding.item.licence.short,
            holding.state + (f" ({holding.detail})" if holding.detail else ""),
        )
        for holding in holdings
    ]
    console.table("Files", ("file", "part", "size", "licence", "state"), rows)
    wanted = [holding for holding in holdings if holding.wanted]
    left = sum(max(0, holding.item.bytes - holding.bytes) for holding in wanted)
    console.info(f"to download: {len(wanted)} of {len(holdings)} files, about {console.size(left)}.")


def _tell_present(holdings: Sequence[LocalFile]) -> None:
    for holding in holdings:
        if holding.state == "there":
            console.info(f"{holding.item.label}: there, unchanged since its download.")
        elif holding.state == "brought":
            console.info(f"{holding.item.label}: there without a download ({holding.detail}); taken as it is.")


def _require_room(raw: Path, wanted: Sequence[LocalFile]) -> None:
    """See that the disk has room for all files, unpacked, and for the one archive that lies beside its own."""
    unpacked = sum(int(h.item.bytes * _UNPACKED_PER_BYTE) if h.item.is_archive else h.item.bytes for h in wanted)
    archive = max((h.item.bytes for h in wanted if h.item.is_archive), default=0)
    held = sum(h.bytes for h in wanted)
    needed = max(0, unpacked + archive - held)
    existing = next(folder for folder in (raw.absolute(), *raw.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise DataError(
            f"--raw {raw}: about {console.size(needed)} more are needed ({console.size(unpacked)} of files, and "
            f"{console.size(archive)} for an archive while it is unpacked; {console.size(held)} are here), "
            f"and {console.size(free)} are free. Make room, choose a --raw on another disk, or fewer --years or "
            "--parts."
        )


def _remove_leftovers(raw: Path, holdings: Sequence[LocalFile]) -> None:
    """A kill between the end of an archive's unpacking and its removal leaves it."""
    for holding in holdings:
        if holding.state == "there":
            part_of(raw, holding.item).remove()


def _fetch(raw: Path, wanted: Sequence[LocalFile], patience: Patience, auth: tuple[bytes, bytes] | None) -> None:
    """Fetch all files; raises the one error there was, or one that tells them all."""
    if not wanted:
        return
    parts = {holding.item: part_of(raw, holding.item) for holding in wanted}
    done = sum(part.size for part in parts.values())
    total = sum(max(item.bytes, part.size) for item, part in parts.items())
    with console.byte_progress(done, total, "downloading") as on_bytes:
        crew = DownloadPool(raw, patience, on_bytes, auth)
        for holding in wanted:
            crew.waiting.put(holding.item)
        crew.work(min(_THREADS, len(wanted)))
    crew.raise_failures()

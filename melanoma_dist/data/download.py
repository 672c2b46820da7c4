"""The challenges' own files, from their server to where ``data prepare`` reads them: ``melanoma-dist data download``.

Look what is here, see to the licences and to room on the disk, then fetch what lacks, a few files at a time. A table
takes its name when all its bytes are here; an archive is unpacked, recorded with its hash, and removed, since both
together fit few disks. Whatever interrupts this leaves ``.part`` files, and the same command goes on from them.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

from melanoma_dist import log
from melanoma_dist.data.archive import DamagedFile, unpacked
from melanoma_dist.data.catalogue import Item, catalogue
from melanoma_dist.data.commands import DownloadConfig
from melanoma_dist.data.holdings import Holding, inspect, part_of, record, target
from melanoma_dist.data.licences import require_acceptance, show_licences
from melanoma_dist.data.part import Part
from melanoma_dist.data.transfer import ELSEWHERE, USUAL, LineDown, Patience, Stop, Stopped, Transfer
from melanoma_dist.errors import DataError, DownloadError, MelanomaDistError

_THREADS = 4
_UNPACKED_PER_BYTE = 1.1
"""JPEG and PNG do not shrink in an archive, and tables are small."""
_GRACE_S = 5.0  # for threads to end after Ctrl-C; one that waits for a connection may take longer and dies with us


def download(config: DownloadConfig, patience: Patience = USUAL) -> None:
    """Bring what ``config`` names and is not there, or with ``config.list`` only tell it.

    Raises ConfigError and DataError for what the user can mend (licences, room, changed files), DownloadError for what
    did not come; other files have then been fetched all the same.
    """
    raw = config.raw
    with _disk(raw):
        items = catalogue(config.years, config.parts, config.base_url)
        show_licences(items)
        holdings = [inspect(raw, item) for item in items]
        if config.list:
            _show(holdings)
            return
        _tell_present(holdings)
        wanted = [holding for holding in holdings if holding.wanted]
        require_acceptance(raw, [holding.item for holding in wanted], config.accept_license)
        _require_room(raw, wanted)
        with _alone(raw):
            _remove_leftovers(raw, holdings)
            _fetch(raw, wanted, patience)
    log.say(f"{raw}: all {len(items)} files are there.")


@contextmanager
def _disk(raw: Path) -> Iterator[None]:
    """Turn what the disk refuses into a DataError."""
    try:
        yield
    except OSError as error:
        full = "The disk is full. Make room" if error.errno == errno.ENOSPC else "Mend that, or choose another --raw"
        raise DataError(
            f"{error.filename or raw}: cannot be read or written ({error.strerror or error}). {full}, "
            "then give the same command again: what has arrived is kept."
        ) from error


def _show(holdings: Sequence[Holding]) -> None:
    rows = [
        (
            holding.item.label,
            holding.item.part,
            f"about {log.size(holding.item.bytes)}",
            holding.item.licence.short,
            holding.state + (f" ({holding.detail})" if holding.detail else ""),
        )
        for holding in holdings
    ]
    log.show_table("Files", ("file", "part", "size", "licence", "state"), rows)
    wanted = [holding for holding in holdings if holding.wanted]
    left = sum(max(0, holding.item.bytes - holding.bytes) for holding in wanted)
    log.say(f"to download: {len(wanted)} of {len(holdings)} files, about {log.size(left)}.")


def _tell_present(holdings: Sequence[Holding]) -> None:
    for holding in holdings:
        if holding.state == "there":
            log.say(f"{holding.item.label}: there, unchanged since its download.")
        elif holding.state == "brought":
            log.say(f"{holding.item.label}: there without a download ({holding.detail}); taken as it is.")


def _require_room(raw: Path, wanted: Sequence[Holding]) -> None:
    """See that the disk has room for everything unpacked and for the archives that are here at one time."""
    unpacked = sum(int(h.item.bytes * _UNPACKED_PER_BYTE) if h.item.is_archive else h.item.bytes for h in wanted)
    missing = sorted((max(0, h.item.bytes - h.bytes) for h in wanted if h.item.is_archive), reverse=True)
    needed = unpacked + sum(missing[:_THREADS])
    existing = next(folder for folder in (raw.absolute(), *raw.absolute().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise DataError(
            f"--raw {raw}: about {log.size(needed)} are needed ({log.size(unpacked)} of files, and "
            f"{log.size(needed - unpacked)} for the archives while they are unpacked), and {log.size(free)} are free. "
            "Make room, choose a --raw on another disk, or fewer --years or --parts."
        )


@contextmanager
def _alone(raw: Path) -> Iterator[None]:
    """One command at a time appends to the files of ``raw``."""
    raw.mkdir(parents=True, exist_ok=True)
    folder = os.open(raw, os.O_RDONLY)
    try:
        # Some network file systems lock no folders; there, nobody is kept out.
        with suppress(OSError):
            try:
                fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise DataError(f"--raw {raw}: another download is at work there. Wait for it, or stop it.") from None
        yield
    finally:
        os.close(folder)


def _remove_leftovers(raw: Path, holdings: Sequence[Holding]) -> None:
    """A kill between the end of an archive's unpacking and its removal leaves it."""
    for holding in holdings:
        if holding.state == "there":
            part_of(raw, holding.item).remove()


def _fetch(raw: Path, wanted: Sequence[Holding], patience: Patience) -> None:
    """Fetch all files; raises the one error there was, or one that tells them all."""
    if not wanted:
        return
    parts = {holding.item: part_of(raw, holding.item) for holding in wanted}
    done = sum(part.size for part in parts.values())
    total = sum(max(item.bytes, part.size) for item, part in parts.items())
    with log.byte_progress(done, total, "downloading") as on_bytes:
        crew = _Crew(raw, patience, on_bytes)
        for holding in wanted:
            crew.waiting.put(holding.item)
        crew.work(min(_THREADS, len(wanted)))
    crew.raise_failures()


@dataclass
class _Crew:
    """The threads that fetch, and what they met."""

    raw: Path
    patience: Patience
    on_bytes: Callable[[int], None]
    stop: Stop = field(default_factory=Stop)
    waiting: SimpleQueue[Item] = field(default_factory=SimpleQueue)
    failures: list[Exception] = field(default_factory=list)
    untried: list[Item] = field(default_factory=list)

    def work(self, threads: int) -> None:
        """Run until nothing waits or something ends it all."""
        # Daemons: one that hangs in the network does not keep the program from ending.
        crew = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        for thread in crew:
            thread.start()
        try:
            for thread in crew:
                thread.join()
        except BaseException:
            self.stop()
            for thread in crew:
                thread.join(_GRACE_S)
            raise

    def raise_failures(self) -> None:
        """Raise what the disk said, else what was met, all in one if it is more."""
        for error in self.failures:
            if not isinstance(error, MelanomaDistError):
                raise error
        if len(self.failures) == 1 and not self.untried:
            raise self.failures[0]
        if self.failures:
            told = "\n  ".join(str(error) for error in self.failures)
            more = f"\n{len(self.untried)} more files were not tried." if self.untried else ""
            raise DownloadError(f"{len(self.failures)} files did not come:\n  {told}{more}")

    def _run(self) -> None:
        with suppress(Empty, Stopped):
            while True:
                item = self.waiting.get_nowait()
                self.stop.check()
                self._guarded(item)

    def _guarded(self, item: Item) -> None:
        """A file that fails does not keep the others from coming, unless they would meet the same."""
        try:
            self._bring(item)
        except LineDown as error:
            self.failures.append(error)
            self._empty_queue()
        except MelanomaDistError as error:
            self.failures.append(error)
        except Stopped:
            raise
        except Exception as error:  # the disk, or a mistake of ours: raised again in the main thread
            self.failures.append(error)
            self.stop()

    def _empty_queue(self) -> None:
        with suppress(Empty):
            while True:
                self.untried.append(self.waiting.get_nowait())

    def _bring(self, item: Item) -> None:
        """Fetch and store one file; a damaged one is fetched once more from the start."""
        part = part_of(self.raw, item)
        for last in (False, True):
            Transfer(item.label, item.url, part, self.patience, self.stop, self.on_bytes, log.say).run()
            try:
                self._store(item, part)
                return
            except DamagedFile as error:
                self._drop(part)
                if last:
                    raise DownloadError(f"{error} It was fetched twice from {item.url}. {ELSEWHERE}") from error
                log.say(f"{error} Fetching it again.")
            except DataError:
                self._drop(part)
                raise

    def _drop(self, part: Part) -> None:
        self.on_bytes(-part.size)
        part.remove()

    def _store(self, item: Item, part: Part) -> None:
        """Put a complete file where it belongs. It is recorded first: a kill in between then shows what is ours."""
        place = target(self.raw, item)
        if not item.is_archive:
            _require_table(item, part)
            record(self.raw, item, part.size, part.sha256, None)
            part.become(place)
            log.say(f"{item.label}: there, {log.size(part.size)}.")
            return
        log.say(f"{item.label}: unpacking {log.size(part.size)}.")
        with unpacked(part.path, place, item.label, check=self.stop.check) as contents:
            record(self.raw, item, part.size, part.sha256, contents)
        part.remove()
        log.say(f"{item.label}: there, {contents.files} files.")


def _require_table(item: Item, part: Part) -> None:
    """A page that says something else is no table of images. (What stands in it, `data prepare` checks.)"""
    with part.path.open("rb") as file:
        head = file.read(4096)
    if b"image" not in head.split(b"\n")[0] or b"ISIC_" not in head:
        raise DamagedFile(f"{item.label}: is not the table of images that it should be.")

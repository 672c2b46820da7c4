"""A few threads that fetch the files, store each, and gather what goes wrong."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

from melanoma_dist import console
from melanoma_dist.data.download.archive import CorruptArchive, contents, unpacked
from melanoma_dist.data.download.catalogue import Item
from melanoma_dist.data.download.counting import require_all, require_rows
from melanoma_dist.data.download.local_files import part_of, record, target
from melanoma_dist.data.download.partial_file import PartialFile
from melanoma_dist.data.download.transfer import (
    ELSEWHERE,
    Patience,
    RetriesExhausted,
    Stop,
    Stopped,
    Transfer,
    Unreachable,
)
from melanoma_dist.errors import DataError, DownloadError, MelanomaDistError

_GRACE_S = 5.0  # for threads to end after Ctrl-C; one that waits for a connection may take longer and dies with us


@dataclass
class DownloadPool:
    """The threads that fetch, and what they met."""

    raw: Path
    patience: Patience
    on_bytes: Callable[[int], None]
    auth: tuple[bytes, bytes] | None = field(default=None, repr=False)
    """User name and password of the server."""
    stop: Stop = field(default_factory=Stop)
    unpacking: threading.Lock = field(default_factory=threading.Lock)
    """One archive is unpacked at a time, so that one at most takes its room twice."""
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
            end = time.monotonic() + _GRACE_S
            for thread in crew:
                thread.join(max(0.0, end - time.monotonic()))
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
            count = f"{len(self.failures)} files did not come:\n  " if len(self.failures) > 1 else ""
            raise DownloadError(f"{count}{told}{more}")

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
        except RetriesExhausted as error:
            self.failures.append(error)
            self._empty_queue()
            if isinstance(error, Unreachable):
                self.stop()
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
            Transfer(item.label, item.url, part, self.patience, self.stop, self.on_bytes, console.info, self.auth).run()
            try:
                self._store(item, part)
                return
            except CorruptArchive as error:
                self._drop(part)
                if last:
                    raise DownloadError(f"{error} It was fetched twice from {item.url}. {ELSEWHERE}") from error
                console.info(f"{error} Fetching it again.")
            except (DataError, DownloadError):
                self._drop(part)
                raise

    def _drop(self, part: PartialFile) -> None:
        self.on_bytes(-part.size)
        part.remove()

    def _store(self, item: Item, part: PartialFile) -> None:
        """Put a complete file where it belongs. It is recorded first: a kill in between then shows what is ours."""
        place = target(self.raw, item)
        if not item.is_archive:
            require_rows(item, part.path)
            record(self.raw, item, part.size, part.sha256, None)
            part.become(place)
            console.info(f"{item.label}: there, {console.size(part.size)}.")
            return
        with self.unpacking:
            console.info(f"{item.label}: unpacking {console.size(part.size)}.")
            with unpacked(part.path, place, item.label, check=self.stop.check) as folder:
                require_all(item, folder)
                unpacked_files = contents(folder)
                record(self.raw, item, part.size, part.sha256, unpacked_files)
            part.remove()
        console.info(f"{item.label}: there, {unpacked_files.files} files.")

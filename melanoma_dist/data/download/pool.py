"""A few threads that download the files, store each, and collect errors."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from melanoma_dist import console
from melanoma_dist.data.download.archive import CorruptArchive, folder_size, unpack
from melanoma_dist.data.download.catalogue import OfficialFile
from melanoma_dist.data.download.local_files import (
    partial_file,
    record_download,
    require_complete,
    require_rows,
    target_path,
)
from melanoma_dist.data.download.partial_file import PartialFile
from melanoma_dist.data.download.transfer import (
    BASE_URL_HINT,
    Cancellation,
    Cancelled,
    Credentials,
    RetriesExhausted,
    RetryPolicy,
    ServerUnreachable,
    Transfer,
)
from melanoma_dist.errors import DataError, DownloadError, MelanomaDistError

_GRACE_S = 5.0  # for threads to end after Ctrl-C; one that is still connecting then dies with the process


@dataclass
class DownloadPool:
    """The download threads, their queue and their errors."""

    raw: Path
    policy: RetryPolicy
    on_bytes: Callable[[int], None]
    queue: deque[OfficialFile]
    auth: Credentials | None = field(default=None, repr=False)
    cancellation: Cancellation = field(default_factory=Cancellation)
    unpacking: threading.Lock = field(default_factory=threading.Lock)
    """Unpacks one archive at a time, so that at most one takes its space twice."""
    errors: list[Exception] = field(default_factory=list)
    skipped: int = 0
    """Number of files that were not tried."""

    def run(self, threads: int) -> None:
        """Download until the queue is empty or an error ends everything."""
        # Daemons: a thread that hangs in the network does not keep the program from ending.
        workers = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        for worker in workers:
            worker.start()
        try:
            for worker in workers:
                worker.join()
        except BaseException:
            self.cancellation.cancel()
            end = time.monotonic() + _GRACE_S
            for worker in workers:
                worker.join(max(0.0, end - time.monotonic()))
            raise

    def raise_errors(self) -> None:
        """Raise an unexpected error (of the disk) if there is one, else the only error, else one that lists all."""
        for error in self.errors:
            if not isinstance(error, MelanomaDistError):
                raise error
        if len(self.errors) == 1 and not self.skipped:
            raise self.errors[0]
        if self.errors:
            texts = "\n  ".join(str(error) for error in self.errors)
            rest = f"\n{self.skipped} more files were not tried." if self.skipped else ""
            count = f"{len(self.errors)} files could not be downloaded:\n  " if len(self.errors) > 1 else ""
            raise DownloadError(f"{count}{texts}{rest}")

    def _work(self) -> None:
        with suppress(IndexError, Cancelled):  # IndexError: the queue is empty
            while True:
                file = self.queue.popleft()
                self.cancellation.check()
                self._try_file(file)

    def _try_file(self, file: OfficialFile) -> None:
        """Download one file. An error stops the other files only if they would meet the same one."""
        try:
            self._download(file)
        except RetriesExhausted as error:
            self.errors.append(error)
            with suppress(IndexError):
                while self.queue.popleft():
                    self.skipped += 1
            if isinstance(error, ServerUnreachable):
                self.cancellation.cancel()
        except MelanomaDistError as error:
            self.errors.append(error)
        except Cancelled:
            raise
        except Exception as error:  # the disk, or a bug: raised again in the main thread
            self.errors.append(error)
            self.cancellation.cancel()

    def _download(self, file: OfficialFile) -> None:
        """Fetch and store one file; fetch a corrupt one once more from the start."""
        part = partial_file(self.raw, file)
        shared = (self.policy, self.cancellation, self.on_bytes, console.info, self.auth)
        for is_last in (False, True):
            Transfer(file.label, file.url, part, *shared).run()
            try:
                self._store(file, part)
                return
            except (DataError, DownloadError) as error:
                self.on_bytes(-part.size)
                part.remove()
                if not isinstance(error, CorruptArchive):
                    raise
                if is_last:
                    raise DownloadError(f"{error} It was fetched twice from {file.url}. {BASE_URL_HINT}") from error
                console.info(f"{error} Fetching it again.")

    def _store(self, file: OfficialFile, part: PartialFile) -> None:
        """Check a complete file and put it in its place. It is recorded first, so that a kill in between shows."""
        place = target_path(self.raw, file)
        if not file.is_archive:
            require_rows(file, part.path)
            record_download(self.raw, file, part.size, part.sha256, None)
            part.commit(place)
            console.info(f"{file.label}: downloaded, {console.size(part.size)}.")
            return
        with self.unpacking:
            console.info(f"{file.label}: unpacking {console.size(part.size)}.")
            with unpack(part.path, place, file.label, check=self.cancellation.check) as folder:
                require_complete(file, folder)
                unpacked = folder_size(folder)
                record_download(self.raw, file, part.size, part.sha256, unpacked)
            part.remove()
        console.info(f"{file.label}: downloaded, {unpacked.files} files.")

"""A thread that keeps a copy up to date and retries what the storage refuses; training never waits for it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from melanoma_dist.mirror.copy import FolderCopy, Log
from melanoma_dist.storage.backoff import Backoff
from melanoma_dist.storage.remote import describe_error

_BACKOFF = Backoff(first_s=2.0, longest_s=300.0)


class Uploader:
    """Updates one copy after each ``notify``.

    ``log`` is called only within ``notify`` and ``close``, in the caller's thread, never in the uploader's.
    """

    def __init__(
        self, name: str, open_copy: Callable[[Log], FolderCopy], log: Log, backoff: Backoff = _BACKOFF
    ) -> None:
        """Start the thread, which opens the copy by ``open_copy(log)``. Messages begin with ``name``."""
        self._name, self._open_copy, self._log, self._backoff = name, open_copy, log, backoff
        self._messages: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._wake = threading.Condition()
        self._changes, self._copied_changes = 0, 0  # number of notifications, and how many of them are in the copy
        self._closing = self._timed_out = False
        self._refusal: str | None = None
        self._thread = threading.Thread(target=self._run, name=f"mirror {name}", daemon=True)
        self._thread.start()

    def notify(self) -> None:
        """Announce that something is new. Returns at once."""
        self._log_messages()
        with self._wake:
            self._changes += 1
            self._wake.notify()

    def close(self, wait_s: float) -> bool:
        """Wait at most ``wait_s`` for the last update. Return whether the copy is up to date; if not, log why."""
        self.notify()
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(wait_s)
        self._log_messages()
        late = self._timed_out = self._thread.is_alive()
        if late:
            why = self._refusal or f"it takes longer than {wait_s:.3g} s"
            self._log(f"{self._name}: the mirror is not up to date ({why}). What it holds is complete.")
        return not late

    def _log_messages(self) -> None:
        while not self._messages.empty():
            self._log(self._messages.get())

    def _run(self) -> None:
        copy: FolderCopy | None = None
        failures = 0
        while (changes := self._next_changes()) is not None:
            try:
                copy = copy or self._open_copy(self._messages.put)
                copy.update()
            except Exception as error:  # each storage's library has classes of its own
                failures += 1
                self._note_failure(error, failures)
                self._pause(self._backoff.wait_s(failures))
                continue
            if failures:
                self._messages.put(f"{self._name}: the mirror can be written again, after {failures} failures.")
            failures, self._refusal, self._copied_changes = 0, None, changes

    def _next_changes(self) -> int | None:
        """Wait for something new; None once nothing more will come."""
        with self._wake:
            self._wake.wait_for(lambda: self._changes > self._copied_changes or self._closing)
            return self._changes if self._changes > self._copied_changes and not self._timed_out else None

    def _note_failure(self, error: Exception, failures: int) -> None:
        self._refusal = describe_error(error)
        if failures & (failures - 1) == 0:  # the first, the second, the fourth, ...
            self._messages.put(
                f"{self._name}: the mirror cannot be written ({self._refusal}), failure {failures}; training continues "
                "while it is retried."
            )

    def _pause(self, seconds: float) -> None:
        """Wait; once closing, only as long as after a first failure, because little time is left."""
        until = time.monotonic() + seconds
        with self._wake:
            self._wake.wait_for(lambda: self._closing, timeout=seconds)
        if self._closing:
            time.sleep(max(0.0, min(until - time.monotonic(), self._backoff.first_s)))

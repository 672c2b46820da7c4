"""A thread that keeps a copy up to date, and tries again what the storage refuses; no training waits for it."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable

from melanoma_dist.mirror.copy import Copy, Tell
from melanoma_dist.storage.backoff import Backoff
from melanoma_dist.storage.remote import told

_BACKOFF = Backoff(first_s=2.0, longest_s=300.0)


class Uploader:
    """Brings one copy up to date, each time it is told that something is new.

    ``tell`` is only called by whoever calls ``nudge`` and ``close``, never by the thread.
    """

    def __init__(self, name: str, copy: Callable[[Tell], Copy], tell: Tell, backoff: Backoff = _BACKOFF) -> None:
        """``copy`` makes the copy, in the thread; it is given whom to tell of damages. ``name`` is the copy's."""
        self._name, self._make, self._tell, self._backoff = name, copy, tell, backoff
        self._news: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._wake = threading.Condition()
        self._asked, self._done = 0, 0
        self._closing = self._given_up = False
        self._refusal: str | None = None
        self._thread = threading.Thread(target=self._run, name=f"mirror {name}", daemon=True)
        self._thread.start()

    def nudge(self) -> None:
        """Something is new. Returns at once."""
        self._pass_on()
        with self._wake:
            self._asked += 1
            self._wake.notify()

    def close(self, wait_s: float) -> bool:
        """Bring over what is left, for at most ``wait_s``; returns whether the copy is up to date, and tells if not."""
        self.nudge()
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(wait_s)
        self._pass_on()
        late = self._given_up = self._thread.is_alive()
        if late:
            why = self._refusal or f"it takes longer than {wait_s:.3g} s"
            self._tell(f"{self._name}: the mirror lacks what is newest here ({why}). What it has is whole.")
        return not late

    def _pass_on(self) -> None:
        while not self._news.empty():
            self._tell(self._news.get())

    def _run(self) -> None:
        copy: Copy | None = None
        failures = 0
        while (asked := self._next()) is not None:
            try:
                copy = copy or self._make(self._news.put)
                copy.update()
            except Exception as error:  # each storage's library has classes of its own
                failures += 1
                self._note(error, failures)
                self._pause(self._backoff.wait_s(failures))
                continue
            if failures:
                self._news.put(f"{self._name}: the mirror takes what is new again, after {failures} failures.")
            failures, self._refusal, self._done = 0, None, asked

    def _next(self) -> int | None:
        """Wait for something new; None when that is over."""
        with self._wake:
            self._wake.wait_for(lambda: self._asked > self._done or self._closing)
            return self._asked if self._asked > self._done and not self._given_up else None

    def _note(self, error: Exception, failures: int) -> None:
        self._refusal = told(error)
        if failures & (failures - 1) == 0:  # the first, the second, the fourth, ...
            self._news.put(
                f"{self._name}: the mirror cannot be written ({self._refusal}), failure {failures}; it is tried again "
                "while the training goes on."
            )

    def _pause(self, seconds: float) -> None:
        """Wait; when it is closing, only as long as the first time, for there is little time left."""
        until = time.monotonic() + seconds
        with self._wake:
            self._wake.wait_for(lambda: self._closing, timeout=seconds)
        if self._closing:
            time.sleep(max(0.0, min(until - time.monotonic(), self._backoff.first_s)))

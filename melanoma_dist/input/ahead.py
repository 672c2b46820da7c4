"""Calls a function ahead of its use, on a thread of its own."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Result = TypeVar("Result")

_DEPTH = 2  # calls ahead: as many batches as DALI asks for at its start


class Ahead(Generic[Result]):
    """``function(0)``, ``function(1)``, ... one after the other, each computed before it is asked for.

    DALI asks for its input in the thread that launches the kernels of a training. Here that thread takes what lies
    ready, and does not wait while the next batch is checked and its parameters are drawn.
    """

    def __init__(self, function: Callable[[int], Result]) -> None:
        """``function`` is called with numbers beyond the last that is used; it must bear that."""
        self._function = function
        self._thread = ThreadPoolExecutor(1, "input")
        self._calls: deque[Future[Result]] = deque()

    def __call__(self, number: int) -> Result:
        """Return ``function(number)`` or raise what it raised. Call with 0, 1, 2, ..."""
        while len(self._calls) <= _DEPTH:
            self._calls.append(self._thread.submit(self._function, number + len(self._calls)))
        return self._calls.popleft().result()

    def restart(self) -> None:
        """Forget what was computed ahead. The next number is 0."""
        while self._calls:
            call = self._calls.popleft()
            if not call.cancel():
                call.exception()  # waits; what it raised belongs to no batch

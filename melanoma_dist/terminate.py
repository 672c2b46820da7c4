"""SIGTERM, by which batch systems and containers end a program: it ends like Ctrl-C, with everything cleaned up."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import NoReturn

_came = threading.Event()


def heed_sigterm() -> None:
    """Raise KeyboardInterrupt in the main thread when SIGTERM comes. Called again where a library took it over."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _interrupt)


def sigterm_came() -> bool:
    """Whether it was SIGTERM that interrupted, and not Ctrl-C."""
    return _came.is_set()


def _interrupt(_: int, __: FrameType | None) -> NoReturn:
    _came.set()
    raise KeyboardInterrupt  # not a class of our own: Ray catches it and raises it anew

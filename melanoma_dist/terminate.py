"""SIGTERM, by which batch systems and containers end a program: it ends like Ctrl-C, with everything cleaned up."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import NoReturn


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM."""


def heed_sigterm() -> None:
    """Raise Terminated in the main thread when SIGTERM comes. Called again where a library took the signal over."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _raise)


def _raise(_: int, __: FrameType | None) -> NoReturn:
    raise Terminated

"""Signals that ask the program to end: Ctrl-C, SIGTERM and SIGUSR1, by which batch systems and containers announce it.

Where there is nothing to save, the first one interrupts. Where units are in training, the first one asks them to save
and leave, and a second one interrupts.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED, TERMINATED = 130, 143  # as shells call the end by SIGINT and by SIGTERM
SAVED = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, give the command again
_HEEDED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class _Signals:
    """What came, and whether it waits."""

    came: int | None = None
    postponed = False
    saved = False


_state = _Signals()


def heed_signals() -> None:
    """Take the signals over, or over again from a library. A command's beginning: what came before is forgotten."""
    if threading.current_thread() is threading.main_thread():
        for number in _HEEDED:
            signal.signal(number, _heed)


def forget() -> None:
    """A new command begins."""
    _state.came, _state.postponed, _state.saved = None, False, False


@contextmanager
def postponed() -> Iterator[None]:
    """Within it, the first signal interrupts nothing: ``asked_to_leave`` tells of it."""
    _state.postponed = True
    try:
        yield
    finally:
        _state.postponed = False


def asked_to_leave() -> bool:
    """Whether a signal came."""
    return _state.came is not None


def interrupted_by(number: int) -> None:
    """A library heard a signal and ended what it did."""
    _state.came = _state.came or number


def everything_saved() -> None:
    """All that was to be trained is saved where it stands: a signal from now on loses nothing."""
    _state.saved = True


def exit_code() -> int:
    """After an interruption: that of the signal; of one that asked for an end and found everything saved, ``SAVED``."""
    if _state.came in (None, signal.SIGINT):
        return INTERRUPTED
    return SAVED if _state.saved else TERMINATED


def told(remains: str) -> str:
    """The end in words; ``remains`` says what an interruption leaves, where nothing was saved just now."""
    if not _state.saved:
        return f"{'interrupted' if exit_code() == INTERRUPTED else 'terminated'}. {remains}"
    text = "saved, and ended as asked: the same command goes on from the very step."
    job = os.environ.get("SLURM_JOB_ID")
    return f"{text} To queue it again: scontrol requeue {job}" if job and exit_code() == SAVED else text


def _heed(number: int, _: FrameType | None) -> None:
    first = _state.came is None
    if first:
        _state.came = number
    if not (first and _state.postponed):
        raise KeyboardInterrupt  # not a class of our own: Ray catches it and raises it anew

"""Signals that ask the program to end: Ctrl-C, SIGTERM, and SIGUSR1 (the warning of batch systems and containers).

By default, the first signal interrupts. While units are training, the first signal asks them to save a checkpoint and
stop, and a second one interrupts.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

INTERRUPTED, TERMINATED = 130, 143  # the exit codes of shells for SIGINT and SIGTERM
SAVED = 75  # EX_TEMPFAIL of sysexits.h: nothing is wrong, run the command again
_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


class _State:
    """The signals of the current command."""

    received: int | None = None
    deferred = False
    started = False
    saved = False


_state = _State()


def install_handlers() -> None:
    """Handle the signals here, at the start of a command and again after a library replaced the handlers."""
    if threading.current_thread() is threading.main_thread():
        for number in _HANDLED:
            signal.signal(number, _handle)


def reset() -> None:
    """Forget earlier signals, at the start of a command."""
    _state.received, _state.deferred, _state.started, _state.saved = None, False, False, False


@contextmanager
def defer_interrupt() -> Iterator[None]:
    """Within the context, the first signal only makes ``stop_requested`` true."""
    _state.deferred = True
    try:
        yield
    finally:
        _state.deferred = False


def stop_requested() -> bool:
    """Whether a signal arrived."""
    return _state.received is not None


def record_signal(number: int) -> None:
    """Note a signal that a library handled."""
    _state.received = _state.received or number


def mark_started() -> None:
    """Note that the command writes from now on."""
    _state.started = True


def has_started() -> bool:
    """Whether the command has begun to write."""
    return _state.started


def mark_saved() -> None:
    """Note that all units are saved on the disk: a signal from now on loses nothing."""
    _state.saved = True


def exit_code() -> int:
    """The exit code after an interrupt: ``SAVED`` after SIGTERM or SIGUSR1 with everything saved, else the signal's."""
    if _state.received in (None, signal.SIGINT):
        return INTERRUPTED
    return SAVED if _state.saved else TERMINATED


def interrupt_message(remains: str, command: str) -> str:
    """The last message after an interrupt.

    ``remains`` describes what is on the disk if not everything was saved. ``command`` resumes.
    """
    if not _state.saved:
        return f"{'interrupted' if exit_code() == INTERRUPTED else 'terminated'}. {remains}"
    text = f"stopped, and every step is saved. The same command resumes:\n{command}"
    job = os.environ.get("SLURM_JOB_ID")
    return f"{text}\nTo queue the job again: scontrol requeue {job}" if job and exit_code() == SAVED else text


def _handle(number: int, _: FrameType | None) -> None:
    first = _state.received is None
    if first:
        _state.received = number
    if not (first and _state.deferred):
        raise KeyboardInterrupt  # not our own class: Ray catches KeyboardInterrupt and raises it again

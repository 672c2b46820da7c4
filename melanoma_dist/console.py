"""Output for people: messages, tables, and progress in terminals and pipes."""

from __future__ import annotations

import errno
import os
import select
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, TextIO, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

T = TypeVar("T")

_PLAIN_INTERVAL_S = 10.0
_BRIEF_S = 1.0  # a phase that is over sooner leaves no line of its time
_PIPE_WIDTH = 160  # columns; a file or a pipe has no width of its own

CLOSED_PIPE = 141  # as a shell reports a program that SIGPIPE ended


class _Console(Console):
    """A console that says when nobody reads it any more, where rich ends the program with exit code 1."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError(errno.EPIPE, "nobody reads the output")


stdout = _Console(
    highlight=False, soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else _PIPE_WIDTH
)


def is_live() -> bool:
    """Whether the program may redraw what it has shown: on a terminal that can move its cursor."""
    return stdout.is_terminal and not stdout.is_dumb_terminal


def program() -> str:
    """The command that the user types: the installed one, or the script of a checkout."""
    path = Path(sys.argv[0])
    if path.name == "melanoma-dist":
        return path.name
    return f"python {path}" if path.name == "launch.py" else "python launch.py"


def is_closed() -> bool:
    """Whether nobody reads the output any more, as after ``| head``. Python's own last flush then writes to nowhere."""
    closed = select.poll()
    outputs = (sys.__stdout__, sys.__stderr__)
    for output in filter(None, outputs):
        closed.register(output, 0)
    broken = [number for number, event in closed.poll(0) if event & (select.POLLERR | select.POLLHUP)]
    for number in broken:
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return bool(broken)


@contextmanager
def replacing(text: str, new: str) -> Iterator[None]:
    """Replace a text in what others print to standard output."""
    with redirect_stdout(_Replacing(sys.stdout, text, new)):
        yield


class _Replacing:
    def __init__(self, stream: TextIO, text: str, new: str) -> None:
        self._stream, self._text, self._new = stream, text, new

    def write(self, text: str) -> int:
        return self._stream.write(text.replace(self._text, self._new))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def command() -> str:
    """The command as the user may type it again."""
    return f"{program()} {shlex.join(sys.argv[1:])}".rstrip()


def info(text: str = "") -> None:
    """Print a message. Markup is not interpreted, because ids and paths may contain brackets."""
    stdout.print(printable(text), markup=False)


def error(text: str) -> None:
    """Print a message to standard error."""
    _Console(stderr=True, highlight=False, soft_wrap=True).print(printable(text), markup=False)


def printable(text: str) -> str:
    """Escape control characters and everything else that a terminal cannot show: ``\\x1b``."""
    return "".join(mark if mark in "\n\t" or mark.isprintable() else ascii(mark)[1:-1] for mark in text)


def table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table. The first column is text, the others are numbers."""
    grid = Table(title=Text(printable(title), style="bold"), title_justify="left")
    for position, name in enumerate(header):
        grid.add_column(name, justify="left" if position == 0 else "right", overflow="fold")  # a long path stays whole
    for row in rows:
        grid.add_row(*(Text(printable(str(cell))) for cell in row))  # ids and reasons may hold brackets
    stdout.print(grid)


def places(files: Mapping[str, object]) -> None:
    """Print where files are, one a line, each after its name."""
    for name, path in files.items():
        info(f"{name + ':':<13}{path}")


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield ``items`` and show progress towards ``total``: a bar in a terminal, a line every 10 s in a pipe."""
    if is_live():
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=stdout, transient=True) as bar:
            yield from bar.track(items, total=total, description=what)
        return
    start = last = 0.0
    for done, item in enumerate(items, 1):
        yield item
        if done == 1:  # its time includes the start of processes, so the rate starts after it
            start = last = time.monotonic()
        elif time.monotonic() - last > _PLAIN_INTERVAL_S:
            last = time.monotonic()
            rate = (done - 1) / (last - start)
            info(f"{what}: {done}/{total}, {rate:.0f}/s, {(total - done) / rate:.0f} s left")


@contextmanager
def phase(what: str) -> Iterator[None]:
    """Show what the program does and for how long: a running clock in a terminal, a line at each end in a pipe."""
    start = time.monotonic()
    if is_live():
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        with Progress(*columns, console=stdout, transient=True) as progress:
            progress.add_task(printable(what), total=None)
            yield
    else:
        info(f"{what} ...")
        yield
    if (seconds := time.monotonic() - start) >= _BRIEF_S:
        info(f"{what}: {duration(seconds)}")


def duration(seconds: float) -> str:
    """Format a time for people: ``48 s``, ``3 min 05 s``, ``2 h 10 min``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def size(count: float) -> str:
    """Format a number of bytes in powers of 1000, as on disks: ``5.8 GB``."""
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


@contextmanager
def byte_progress(done: int, total: int, what: str) -> Iterator[Callable[[int], None]]:
    """Yield a thread-safe function that takes numbers of new bytes. Shows progress, rate and time left."""
    if is_live():
        columns = (DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        with Progress(TextColumn("{task.description}"), BarColumn(), *columns, console=stdout, transient=True) as bar:
            task = bar.add_task(what, total=total, completed=done)
            yield lambda count: bar.advance(task, count)
    else:
        yield _PlainBytes(done, total, what).add


class _PlainBytes:
    def __init__(self, done: int, total: int, what: str) -> None:
        self._done, self._total, self._what = done, total, what
        self._received = 0
        self._start = self._last = time.monotonic()
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        with self._lock:
            self._done += count
            self._received += max(0, count)
            if time.monotonic() - self._last > _PLAIN_INTERVAL_S:
                self._last = time.monotonic()
                rate = max(self._received, 1) / (self._last - self._start)
                left = max(0, self._total - self._done) / rate
                amount = f"{size(self._done)} of about {size(self._total)}"
                info(f"{self._what}: {amount}, {size(rate)}/s, {left / 60:.0f} min left")

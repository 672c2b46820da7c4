"""What the program says to a person: one console, tables, and progress that suits pipes too."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

T = TypeVar("T")

_PLAIN_INTERVAL_S = 10.0
_PIPE_WIDTH = 160  # columns; a file or a pipe has no width of its own

console = Console(
    highlight=False, soft_wrap=not sys.stdout.isatty(), width=None if sys.stdout.isatty() else _PIPE_WIDTH
)


def say(text: str = "") -> None:
    """Print one line (no markup is interpreted: ids and paths may hold brackets)."""
    console.print(text, markup=False)


def complain(text: str) -> None:
    """Print one message to standard error."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)


def show_table(title: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table; the first column is text, the others are numbers."""
    table = Table(title=title, title_justify="left", title_style="bold")
    for position, name in enumerate(header):
        table.add_column(name, justify="left" if position == 0 else "right")
    for row in rows:
        table.add_row(*(str(cell) for cell in row))
    console.print(table)


def progress(items: Iterable[T], total: int, what: str) -> Iterator[T]:
    """Yield ``items`` while showing how many of ``total`` are done: a bar, or a line every 10 s in a pipe."""
    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            yield from bar.track(items, total=total, description=what)
        return
    start = last = time.monotonic()
    for done, item in enumerate(items, 1):
        yield item
        if time.monotonic() - last > _PLAIN_INTERVAL_S:
            last = time.monotonic()
            rate = done / (last - start)
            say(f"{what}: {done}/{total}, {rate:.0f}/s, {(total - done) / rate:.0f} s left")

"""Tables of pages: cells with a text and a note, for HTML, Markdown and the terminal alike."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Literal, NamedTuple

from melanoma_dist.pages.numbers import UNDEFINED, number, span

Kind = Literal["", "undefined", "text", "flag", "good", "bad"]
"""How a cell is styled: ``text`` aligns left and wraps, ``flag`` and ``bad`` are red."""


class Cell(NamedTuple):
    """One cell of a table."""

    text: str
    note: str = ""
    """Shown smaller below the text: an interval, or why there is no number."""
    kind: Kind = ""
    share: float | None = None
    """A bar behind the text, 0 to 1: the cell's share of its column."""

    def __str__(self) -> str:
        return f"{self.text} ({self.note})" if self.note else self.text


class Table(NamedTuple):
    """Rows under a header; the first cell of a row names it."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def plain(value: object, kind: Kind = "") -> Cell:
    """Return a cell with text, or with a count and its thousands separators."""
    return Cell(f"{value:,}" if isinstance(value, Integral) and not isinstance(value, bool) else str(value), "", kind)


def undefined(reason: str = "") -> Cell:
    """Return a cell for a number that the data does not define: an en dash and the reason."""
    return Cell(UNDEFINED, reason, "undefined")


def measured(value: float | None, reason: str = "", low: float | None = None, high: float | None = None) -> Cell:
    """Return a cell with a number and its interval, or an en dash and the reason."""
    return undefined(reason) if value is None else Cell(number(value), span(low, high))

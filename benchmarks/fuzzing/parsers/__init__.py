"""Every reader of what others may have written, as the program's commands use it, and the files that it reads.

A module is loaded where one of its parsers is asked for: ``judged`` needs DALI, ``sweep`` Ray, and the others neither.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

_NAMES = {
    "data": (
        "tables", "downloaded-table", "archive", "partial-download", "licences", "download-record", "photographs",
        "preparation", "description", "manifest", "joins", "shards",
    ),
    "runs": ("configuration", "folds", "weights", "compared-run", "compared-look", "earlier-looks", "report"),
    "training": ("begun-run", "finished-run", "checkpoint", "curves", "mirror"),
    "judged": ("judged-run",),
    "sweep": ("sweep-journal",),
}  # fmt: skip
NAMES = tuple(name for names in _NAMES.values() for name in names)


@dataclass(frozen=True)
class Parser:
    """A reader: ``read`` is given the folder that holds copies of ``folders``, in which one of ``files`` is damaged."""

    read: Callable[[Path], object]
    folders: tuple[str, ...]
    files: tuple[str, ...]
    begin: Callable[[Path], object] = lambda place: None
    """Makes what no sample is."""


def module_of(name: str) -> str:
    """The module that holds a parser."""
    return next(f"{__name__}.{module}" for module, names in _NAMES.items() if name in names)


def parser(name: str) -> Parser:
    """A parser by its name; its module is loaded."""
    found: Parser = import_module(module_of(name)).PARSERS[name]
    return found

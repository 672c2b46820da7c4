"""All readers of untrusted files, as the program's commands use them, and the files that they read.

A module is imported only for its own parsers: ``trained`` needs DALI, ``sweep`` needs Ray, the others neither.
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
    "runs": (
        "configuration", "folds", "weights", "compared-run", "compared-evaluation", "earlier-evaluations", "report",
    ),
    "training": ("resumed-run", "finished-run", "checkpoint", "curves", "mirror"),
    "trained": ("trained-run", "hub-folder"),
    "sweep": ("sweep-journal",),
}  # fmt: skip
NAMES = tuple(name for names in _NAMES.values() for name in names)


@dataclass(frozen=True)
class Parser:
    """A reader. ``read`` gets a folder with copies of the sample ``folders``; one of the ``files`` in it is corrupt."""

    read: Callable[[Path], object]
    folders: tuple[str, ...]
    files: tuple[str, ...]
    begin: Callable[[Path], object] = lambda place: None
    """Creates files that are not among the samples."""


def module_of(name: str) -> str:
    """Return the module of a parser."""
    return next(f"{__name__}.{module}" for module, names in _NAMES.items() if name in names)


def parser(name: str) -> Parser:
    """Import a parser by its name."""
    result: Parser = import_module(module_of(name)).PARSERS[name]
    return result

"""All sources, found by the modules of this package, and the collections that a raw folder holds."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from melanoma_dist.data import sources
from melanoma_dist.data.sources.source import Collection, Source, check_collection
from melanoma_dist.data.tables import Problems
from melanoma_dist.errors import DataError


def discover() -> dict[str, Source]:
    """The ``SOURCE`` of every module in `melanoma_dist.data.sources`, by name, earlier years first."""
    modules = [import_module(f"{sources.__name__}.{info.name}") for info in pkgutil.iter_modules(sources.__path__)]
    available: list[Source] = [module.SOURCE for module in modules if hasattr(module, "SOURCE")]
    return {source.name: source for source in sorted(available, key=lambda source: (source.year, source.name))}


SOURCES = discover()
OFFICIAL_HOLDOUTS = frozenset[str]().union(*(source.holdouts for source in SOURCES.values()))
"""The official validation and test splits of all sources: "2017-test" and the like."""


def read_collections(raw: Path, names: Sequence[str]) -> list[Collection]:
    """Read the named collections under ``raw``, and the tables of the others that lie there.

    A collection that was not named may still know the test set or the lesion of an image.
    Raises DataError for an unknown name, for missing tables, and one for all wrong rows together.
    """
    unknown = sorted(set(names) - set(SOURCES))
    if unknown or not names:
        raise DataError(f"--years {' '.join(names)}: must be among {', '.join(SOURCES)}.")
    if not raw.is_dir():
        folders = ", ".join(str(raw / name) for name in names)
        raise DataError(
            f"{raw}: no such folder. It should hold one folder per collection: {folders}. "
            "Get the challenges' files with `data download`, or try the program without any data: `--data demo`."
        )
    problems = Problems()
    present = [source for source in SOURCES.values() if source.name in names or source.has_labels(raw)]
    collections = [source.read(raw, source.name in names, problems) for source in present]
    problems.raise_any()
    for source, collection in zip(present, collections, strict=True):
        check_collection(source, collection)
    return collections


def warnings_about(collections: Sequence[Collection]) -> list[str]:
    """What was left out of the selected collections, and what could not be known."""
    selected = [each for each in collections if each.selected]
    notes = [f"{each.name}: {note}." for each in selected for note in each.notes]
    return notes + [text for each in selected for text in SOURCES[each.name].cautions(collections)]

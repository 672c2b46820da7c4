"""All sources, found by the modules of this package, and the collections that a raw folder holds."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pandas as pd

from melanoma_dist.data import sources
from melanoma_dist.data.raw_folder import RawFolder
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


def read_collections(raw: Path, names: Sequence[str], allow_incomplete: bool = False) -> list[Collection]:
    """Read the named collections under ``raw``, and the tables of the others that lie there.

    A collection that was not named may still know the test set or the lesion of an image.
    Raises DataError for an unknown name, for missing tables, one for all wrong rows together, and one for all tables
    that say too little about their images, unless ``allow_incomplete``.
    """
    unknown = sorted(set(names) - set(SOURCES))
    if unknown or not names:
        raise DataError(f"--years {' '.join(names)}: must be among {', '.join(SOURCES)}.")
    if not raw.is_dir():
        raise DataError(
            f"--raw {raw}: no such folder. It should hold the tables and images of {', '.join(names)}. "
            "Get the challenges' files with `data download`, or try the program without any data: `--data demo`."
        )
    problems, folder = Problems(), RawFolder(raw)
    present = [source for source in SOURCES.values() if source.name in names or source.has_labels(folder)]
    collections = [source.read(folder, source.name in names, problems) for source in present]
    problems.raise_any()
    for source, collection in zip(present, collections, strict=True):
        check_collection(source, collection)
    gaps = _gaps(collections)
    if gaps and not allow_incomplete:
        listing = "\n  ".join(gaps)
        raise DataError(
            f"--raw {raw}: the tables leave out images or lesions:\n  {listing}\n"
            "Images of one lesion could lie in two folds, and no check would see it. Complete these tables (`data "
            "download --parts labels` has those of the challenges), or accept them with --allow-incomplete-tables: the "
            "data set's record and each report repeat it."
        )
    return [replace(collections[0], remarks=(*problems.remarks, *collections[0].remarks)), *collections[1:]]


def _gaps(collections: Sequence[Collection]) -> list[str]:
    return [f"{each.name}: {gap}" for each in collections for gap in each.gaps]


def accepted_gaps(collections: Sequence[Collection], images: pd.DataFrame) -> list[str]:
    """The tables that were accepted although they say too little, and what is unknown of the prepared images."""
    unknown = int(images["lesion_id"].isna().sum())
    gaps = [f"accepted with --allow-incomplete-tables: {gap}." for gap in _gaps(collections)]
    return gaps and [*gaps, f"The lesion of {unknown} of {len(images)} images is unknown: two folds may share lesions."]


def warnings_about(collections: Sequence[Collection]) -> list[str]:
    """What was left out of the selected collections, and what could not be known."""
    selected = [each for each in collections if each.selected]
    notes = [f"{each.name}: {note}." for each in selected for note in each.notes]
    return notes + [text for each in selected for text in SOURCES[each.name].cautions(collections)]

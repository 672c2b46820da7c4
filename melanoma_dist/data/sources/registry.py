"""All sources, found by the modules of this package, and the collections that a raw folder holds."""

from __future__ import annotations

import pkgutil
from collections import Counter
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


def read_collections(
    raw: Path, names: Sequence[str], allow_incomplete: bool = False, described: Sequence[Source] = ()
) -> list[Collection]:
    """Read the named and the ``described`` collections under ``raw``, and the tables of the others that lie there.

    A collection that was not named may still know the test set or the lesion of an image.
    Raises DataError for an unknown name, for missing tables, one for all wrong rows together, and one for all tables
    that say too little about their images, unless ``allow_incomplete``.
    """
    available = SOURCES | _by_name(described)
    names = [*names, *(source.name for source in described)]
    unknown = sorted(set(names) - set(available))
    if unknown or not names:
        raise DataError(f"--years {' '.join(names)}: must be among {', '.join(SOURCES)}.")
    if not raw.is_dir():
        raise DataError(
            f"--raw {raw}: no such folder. It should hold the tables and images of {', '.join(names)}. "
            "Get the challenges' files with `data download`, or try the program without any data: `--data demo`."
        )
    problems, folder = Problems(), RawFolder(raw)
    ordered = sorted(available.values(), key=lambda source: (source.year, source.name))
    present = [source for source in ordered if source.name in names or source.has_labels(folder)]
    collections = [source.read(folder, source.name in names, problems) for source in present]
    problems.raise_any()
    collections = separate_ids(collections)
    for source, collection in zip(present, collections, strict=True):
        check_collection(source, collection)
    gaps = _gaps(collections)
    if gaps and not allow_incomplete:
        listing = "\n  ".join(gaps)
        raise DataError(
            f"{raw}: the tables leave out images or lesions:\n  {listing}\n"
            "Images of one lesion or patient could lie in two folds, and no check would see it. Complete these tables "
            "(`data download --parts labels` has those of the challenges), or accept them with "
            "--allow-incomplete-tables: the data set's record and each report repeat it."
        )
    return [replace(collections[0], remarks=(*problems.remarks, *collections[0].remarks)), *collections[1:]]


def _by_name(described: Sequence[Source]) -> dict[str, Source]:
    for source in described:
        if source.name in SOURCES or [each.name for each in described].count(source.name) > 1:
            raise DataError(f"--source: two collections have the name {source.name}. Change `name` of one of them.")
    return {source.name: source for source in described}


def separate_ids(collections: Sequence[Collection]) -> list[Collection]:
    """The collections, with their names before own ids that another collection uses too.

    Image 7 of two clinics is not one image, nor is their patient 7.
    """
    for column in ("image_id", "lesion_id", "patient_id"):
        ids = [set(each.records[column].dropna()) for each in collections]
        times = Counter(name for each in ids for name in each)
        shared = [any(times[name] > 1 for name in each) for each in ids]
        collections = [
            _with_name(each, column) if each.own_ids and repeated else each
            for each, repeated in zip(collections, shared, strict=True)
        ]
    return list(collections)


def _with_name(collection: Collection, column: str) -> Collection:
    """A collection with its name before the ids of a column."""
    prefix = f"{collection.name}:"
    records = collection.records.assign(**{column: prefix + collection.records[column]})
    remark = f"another collection has a {column} of this one too: each begins with {prefix}"
    collection = replace(collection, records=records, remarks=(*collection.remarks, remark))
    if column != "image_id":
        return collection
    files = {prefix + image_id: paths for image_id, paths in collection.files.items()}
    masks = {prefix + image_id: path for image_id, path in collection.masks.items()}
    duplicates = tuple((prefix + one, prefix + other) for one, other in collection.duplicates)
    return replace(collection, files=files, masks=masks, duplicates=duplicates)


def _gaps(collections: Sequence[Collection]) -> list[str]:
    return [f"{each.name}: {gap}" for each in collections for gap in each.gaps]


def accepted_gaps(collections: Sequence[Collection], images: pd.DataFrame) -> list[str]:
    """The tables that were accepted although they say too little, and what is unknown of the prepared images."""
    known = images["lesion_id"].notna()
    if "patient_id" in images:
        known |= images["patient_id"].notna()
    unknown = int((~known).sum())
    gaps = [f"accepted with --allow-incomplete-tables: {gap}." for gap in _gaps(collections)]
    return gaps and [*gaps, f"The lesion of {unknown} of {len(images)} images is unknown: two folds may share lesions."]


def warnings_about(collections: Sequence[Collection]) -> list[str]:
    """What was left out of the selected collections, and what could not be known."""
    selected = [each for each in collections if each.selected]
    notes = [f"{each.name}: {note}." for each in selected for note in each.notes]
    by_code = [SOURCES[each.name] for each in selected if each.name in SOURCES]
    return notes + [text for source in by_code for text in source.cautions(collections)]

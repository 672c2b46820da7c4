"""Decodes every image once, stores it in a shard and records it in the journal, with few images in memory at a time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from melanoma_dist import console
from melanoma_dist.data.decode import prepare_photos
from melanoma_dist.data.photo import Photo, PhotoJob
from melanoma_dist.data.schema import LONGEST, SHARD
from melanoma_dist.data.shards import Place, ShardWriter
from melanoma_dist.errors import DataError
from melanoma_dist.storage.journal import Journal, Record


class Entry(NamedTuple):
    """One image in the journal; `Photo`, with paths relative to the raw folder and the place in the shards."""

    image_id: str
    source: str | None
    source_sha256: str
    perceptual_hash: str
    width: int
    height: int
    source_width: int
    source_height: int
    place: Place | None
    """None if no file of the image can be decoded."""
    failures: list[tuple[str, str]]
    """Unreadable files, each with the reason."""


_TEXTS = ("image_id", "source_sha256", "perceptual_hash")
_SIZES = ("width", "height", "source_width", "source_height")
_DTYPES = dict.fromkeys(("image_id", "source", *_TEXTS[1:]), "str") | dict.fromkeys(_SIZES, "int64")
_PLACE_DTYPES = dict.fromkeys(Place._fields, "int64") | {"shard": "str"}
_AT_ONCE = 1024  # entries per partial table: as Python objects they take five times its memory
_SYNC_EVERY = 128  # images between two syncs to the disk


def store_images(raw: Path, jobs: list[PhotoJob], out: Path, journal: Journal, quiet: bool) -> None:
    """Decode every image that is not yet in the journal, store it in ``out`` and record it.

    ``raw`` is the folder that the journal's file names are relative to; ``quiet`` hides the progress bar.
    """
    last: Place | None = None
    for entry in _entries(journal):
        last = entry.place or last
    todo = jobs[journal.finished :]
    photos: Iterable[Photo] = prepare_photos(todo)
    with ShardWriter(out, after=last) as writer:
        new: list[Record] = []
        for photo in photos if quiet else console.progress(photos, len(todo), "preparing"):
            place = None if photo.jpeg is None else writer.add(photo.image_id, photo.jpeg, photo.mask)
            new.append(_entry(raw, photo, place)._asdict())
            if len(new) == _SYNC_EVERY:
                # Pixels first: the journal must never record an image whose bytes a power cut can lose.
                writer.sync()
                journal.add(new)
                new = []
    journal.add(new)


def _entry(raw: Path, photo: Photo, place: Place | None) -> Entry:
    return Entry(
        image_id=photo.image_id,
        source=photo.source.relative_to(raw).as_posix() if photo.source else None,
        source_sha256=photo.source_sha256,
        perceptual_hash=photo.perceptual_hash,
        width=photo.width,
        height=photo.height,
        source_width=photo.source_width,
        source_height=photo.source_height,
        place=place,
        failures=[(path.relative_to(raw).as_posix(), reason) for path, reason in photo.failures],
    )


def read_results(journal: Journal) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The stored images with their sizes and places, and the quarantined files with reasons."""
    tables, failures = [_table([])], []
    entries = _entries(journal)
    while part := list(islice(entries, _AT_ONCE)):
        tables.append(_table(part))
        failures += [(entry.image_id, *failure) for entry in part for failure in entry.failures]
    quarantine = pd.DataFrame(failures, columns=["image_id", "source", "reason"], dtype="str")
    return pd.concat(tables, ignore_index=True), quarantine


def _table(entries: list[Entry]) -> pd.DataFrame:
    rows = [(*(getattr(entry, name) for name in _DTYPES), *entry.place) for entry in entries if entry.place]
    return pd.DataFrame(rows, columns=[*_DTYPES, *Place._fields]).astype(_DTYPES | _PLACE_DTYPES)


def _entries(journal: Journal) -> Iterator[Entry]:
    """The entries of a journal. Raises DataError for a line that no preparation wrote."""
    for record in journal.records():
        if not _is_valid(record):
            raise DataError(
                f"the journal of the unfinished preparation is corrupt: its record of {record.get('image_id')!r} is "
                "wrong. Delete the folder and prepare it again."
            )
        yield Entry(**{**record, "place": record["place"] and Place(*record["place"])})


def _is_valid(record: Record) -> bool:
    if record.keys() != set(Entry._fields):
        return False
    place, failures = record["place"], record["failures"]
    return (
        all(isinstance(record[name], str) for name in _TEXTS)
        and all(type(record[name]) is int and 0 <= record[name] < 2**31 for name in _SIZES)
        and isinstance(failures, list)
        and all(isinstance(pair, list) and [type(part) for part in pair] == [str, str] for pair in failures)
        and isinstance(record["source"], str if place else str | None)
        and (place is None or _is_place(place))
    )


def _is_place(place: object) -> bool:
    if not isinstance(place, list) or len(place) != len(Place._fields):
        return False
    shard, *numbers = place
    return (
        isinstance(shard, str)
        and re.fullmatch(SHARD, shard) is not None
        and all(type(number) is int and -1 <= number < LONGEST for number in numbers)
    )

"""Every photograph decoded once, stored in a shard and noted in the journal; memory holds a few of them at a time."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pandas as pd

from melanoma_dist import console
from melanoma_dist.data.decode import prepare_photos
from melanoma_dist.data.journal import Journal, Record
from melanoma_dist.data.photo import Photo, PhotoJob
from melanoma_dist.data.schema import LONGEST, SHARD
from melanoma_dist.data.shards import Place, ShardWriter
from melanoma_dist.errors import DataError

_FACTS = dict.fromkeys(("image_id", "source", "source_sha256", "perceptual_hash"), "str") | dict.fromkeys(
    ("width", "height", "source_width", "source_height"), "int64"
)
_PLACES = dict.fromkeys(Place._fields, "int64") | {"shard": "str"}
_AT_ONCE = 1024  # records made into a table together: as text they take five times its memory
_SETTLED = 128  # images between two moments at which everything is on the disk


def store_images(raw: Path, jobs: list[PhotoJob], out: Path, finished: Journal, quiet: bool) -> None:
    """Decode and store in ``out`` every image that is not ``finished``; what became of it goes into the journal.

    ``raw`` is what the journal's file names are relative to; ``quiet`` shows no progress.
    """
    last: Place | None = None
    for record in _checked(finished):
        last = Place(*record["place"]) if record["place"] else last
    todo = jobs[finished.finished :]
    photos: Iterable[Photo] = prepare_photos(todo)
    with ShardWriter(out, after=last) as writer:
        new: list[Record] = []
        for photo in photos if quiet else console.progress(photos, len(todo), "preparing"):
            place = None if photo.jpeg is None else writer.add(photo.image_id, photo.jpeg, photo.mask)
            new.append(_record(raw, photo, place))
            if len(new) == _SETTLED:
                writer.settle()
                finished.add(new)
                new = []
    finished.add(new)


def _record(raw: Path, photo: Photo, place: Place | None) -> Record:
    return {
        "image_id": photo.image_id,
        "failures": [[path.relative_to(raw).as_posix(), reason] for path, reason in photo.failures],
        "place": place,
        "width": photo.width,
        "height": photo.height,
        "source": photo.source and photo.source.relative_to(raw).as_posix(),
        "source_sha256": photo.source_sha256,
        "source_width": photo.source_width,
        "source_height": photo.source_height,
        "perceptual_hash": photo.perceptual_hash,
    }


def outcome(finished: Journal) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The images that were stored, with their facts and places; and the files that were not, with reasons."""
    stored, failed = [_stored([])], []
    records = _checked(finished)
    while some := list(islice(records, _AT_ONCE)):
        stored.append(_stored(some))
        failed += [(record["image_id"], *failure) for record in some for failure in record["failures"]]
    quarantine = pd.DataFrame(failed, columns=["image_id", "source", "reason"], dtype="str")
    return pd.concat(stored, ignore_index=True), quarantine


def _checked(finished: Journal) -> Iterator[Record]:
    """The records of a journal. Raises DataError for one that no preparation wrote."""
    for record in finished.records():
        if not _is_whole(record):
            raise DataError(
                f"the journal of the unfinished preparation has a record of {record.get('image_id')!r} that is "
                "damaged. Delete the folder and prepare it again."
            )
        yield record


def _is_whole(record: Record) -> bool:
    place, failures = record.get("place"), record.get("failures")
    counts = [record.get(name) for name in ("width", "height", "source_width", "source_height")]
    texts = [record.get(name) for name in ("image_id", "source_sha256", "perceptual_hash")]
    return (
        "place" in record
        and all(isinstance(text, str) for text in texts)
        and all(type(count) is int and 0 <= count < 2**31 for count in counts)
        and isinstance(failures, list)
        and all(isinstance(pair, list) and [type(part) for part in pair] == [str, str] for pair in failures)
        and isinstance(record.get("source"), str if place else str | None)
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


def _stored(records: list[Record]) -> pd.DataFrame:
    rows = [(*(record[fact] for fact in _FACTS), *record["place"]) for record in records if record["place"]]
    return pd.DataFrame(rows, columns=[*_FACTS, *Place._fields]).astype(_FACTS | _PLACES)

"""Earlier looks at images: those that records in a folder of runs tell of, and those whose own records are gone.

Looks are compared image by image, so that a look at some of the images, or at more than these, counts too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from melanoma_dist.data.manifest import write_table
from melanoma_dist.errors import DataError
from melanoma_dist.inference.images import Bools, Images
from melanoma_dist.storage.parquet import read_parquet
from melanoma_dist.storage.untrusted import read_json

EVALUATIONS = "evaluations"
RECORD = "evaluation.json"
IMAGES = "images.parquet"
PREDICTIONS = "predictions.parquet"
_NEEDED = {"number", "begun", "images_sha256", "models"}
_IDENTIFY = ["image_id", "source_sha256"]

Entry = dict[str, Any]
"""A look: "run", "number", "begun" (null where not known), "images" (how many of the present images it saw; null where
not known), and "deleted": true where its own record is gone."""


@dataclass(frozen=True)
class Kept:
    """A record that is there."""

    path: Path
    record: dict[str, Any]

    @property
    def key(self) -> tuple[str, int, str]:
        """What tells a look from others: run, number and when it began."""
        return self.path.parents[2].name, int(self.record["number"]), str(self.record["begun"])

    def named(self) -> list[Entry]:
        """The looks that it calls earlier."""
        return list(self.record.get("earlier") or [])


@dataclass(frozen=True)
class Past:
    """What came before a look that is about to begin."""

    number: int
    """Of the look among those of its run; one that is gone keeps its number."""
    earlier: list[Entry]
    """By time, those of unknown time last."""
    seen: int
    """How many of the images any record that is there says were looked at."""


def look_back(run: Path, images: Images) -> Past:
    """Every earlier look at any of the images by a run in the same folder, finished or not.

    Looks whose records are gone are told by the records that name them, and by gaps in the numbers of ``run``: what
    images those saw is not known, and they count. Raises DataError for a record that cannot be read.
    """
    records = read_records(run.parent.glob(f"*/{EVALUATIONS}/*/{RECORD}"))
    rows = [(each, seen_in(each, images)) for each in records]
    found = [(each, seen) for each, seen in rows if seen.any()]
    entries = [_entry(*each.key, int(seen.sum())) for each, seen in found]
    entries += _gone([each for each, _ in found], records, run.parent)
    number = _next_number(run, records)
    told = {(entry["run"], entry["number"]) for entry in entries}
    entries += [_deleted(run.name, lost, None) for lost in _lost(run, number) if (run.name, lost) not in told]
    union = np.logical_or.reduce([np.zeros(len(images.rows), dtype=bool), *(seen for _, seen in found)])
    return Past(number, sorted(entries, key=_by_time), int(union.sum()))


def read_records(paths: Iterable[Path]) -> list[Kept]:
    """The records in files. Raises DataError for one that cannot be read: it may tell of a look."""
    return [Kept(path, _record(path)) for path in sorted(paths)]


def write_images(images: Images, folder: Path) -> None:
    """Keep what identifies each image of a look beside its record."""
    write_table(folder / IMAGES, images.table[_IDENTIFY])


def seen_in(kept: Kept, images: Images) -> Bools:
    """Which of the images [n] a look saw, by their ids or the hashes of their source files.

    Of a record that does not keep them, all where the whole set is the same, else those that it has predictions of.
    """
    table = images.table
    if not (kept.path.parent / IMAGES).is_file() and kept.record["images_sha256"] == images.sha256():
        return np.ones(len(table), dtype=bool)
    seen = np.zeros(len(table), dtype=bool)
    for column, values in _identities(kept).items():
        known = {value for value in values if value}
        seen |= table[column].isin(known).to_numpy()
    return seen


def _identities(kept: Kept) -> pd.DataFrame:
    folder = kept.path.parent
    for name, columns in ((IMAGES, _IDENTIFY), (PREDICTIONS, _IDENTIFY[:1])):
        if (folder / name).is_file():
            try:
                return read_parquet(folder / name, columns)
            except (OSError, ValueError) as error:
                raise _unknown(folder / name, f"cannot be read ({error})") from error
    if kept.record.get("schema") != 1:
        raise _unknown(folder / IMAGES, "is missing")
    return pd.DataFrame()


def _record(path: Path) -> dict[str, Any]:
    try:
        record = read_json(path)
        missing = _NEEDED - set(record)
    except (OSError, ValueError, TypeError) as error:
        raise _unknown(path, f"cannot be read ({error})") from error
    if missing:
        raise _unknown(path, f"lacks {', '.join(sorted(missing))}")
    return dict(record)


def _unknown(path: Path, why: str) -> DataError:
    return DataError(f"{path}: {why}, and may tell of an earlier look. Bring it back.")


def _gone(found: list[Kept], records: list[Kept], runs: Path) -> list[Entry]:
    """The looks that records of these images name and that have no record themselves."""
    there = {each.key for each in records}
    named = {(look["run"], int(look["number"]), look["begun"]) for each in found for look in each.named()}
    dated = {key[:2] for key in there | named if key[2] is not None}
    kept_elsewhere = {key[1:] for key in there}
    lost = [
        (name, number, begun)
        for name, number, begun in named - there
        if (begun is not None or (name, number) not in dated)
        and ((runs / name).exists() or (number, begun) not in kept_elsewhere)  # else the run's folder was renamed
    ]
    return [_deleted(*key) for key in lost]


def _next_number(run: Path, records: list[Kept]) -> int:
    """After every number that a folder of the run has, or that a record says it had."""
    numbers = [_number(path) for path in (run / EVALUATIONS).iterdir()]
    numbers += [int(look["number"]) for each in records for look in each.named() if look["run"] == run.name]
    return 1 + max(numbers, default=0)


def _lost(run: Path, number: int) -> list[int]:
    """The numbers below ``number`` of which no record is there. A folder without predictions had no look."""
    there = {
        _number(path)
        for path in (run / EVALUATIONS).iterdir()
        if (path / RECORD).exists() or (path.is_dir() and not (path / PREDICTIONS).exists())
    }
    return [each for each in range(1, number) if each not in there]


def _number(path: Path) -> int:
    match = re.match(r"(\d+)-", path.name)
    return int(match[1]) if match else 0


def _entry(run: str, number: int, begun: str | None, images: int | None) -> Entry:
    return {"run": run, "number": number, "begun": begun, "images": images}


def _deleted(run: str, number: int, begun: str | None) -> Entry:
    return {**_entry(run, number, begun, None), "deleted": True}


def _by_time(look: Entry) -> tuple[bool, str, str, int]:
    return look["begun"] is None, look["begun"] or "", look["run"], look["number"]

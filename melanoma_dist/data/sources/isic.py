"""The ISIC challenges of 2017 to 2019: how they are read. What differs between the years stands in one file per year.

A year is a folder (``2017``, ``2018``, ``2019``) with the challenge's files under their own names.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from melanoma_dist.data.groups import TRAIN
from melanoma_dist.data.sources.isic_layout import IMAGE_FILE, IMAGE_ID, MASK_FILE, find_files, find_table
from melanoma_dist.data.sources.source import RECORD_COLUMNS, Collection
from melanoma_dist.data.tables import Column, IdColumn, Problems, read_labels, read_metadata
from melanoma_dist.errors import DataError

_SUFFIX = "_downsampled"


class Part(NamedTuple):
    """One split of a year: the folder of its images and the names of its tables, without ``.csv``."""

    split: str
    images: str
    labels: str
    metadata: str


def make_parts(prefix: str, splits: dict[str, str], *tables: str) -> tuple[Part, ...]:
    """The parts of a year whose names differ only in the split: ``splits`` has the challenge's name of each split."""
    return tuple(Part(split, *(f"{prefix}_{name}_{table}" for table in tables)) for split, name in splits.items())


class _Content(NamedTuple):
    """The content of a part; ``records`` is None if it has no table of labels."""

    records: pd.DataFrame | None
    files: dict[str, tuple[Path, ...]]
    notes: list[str]


def base_id(text: str) -> str | None:
    """The image id in a table's entry: ``ISIC_`` and seven digits, without ``_downsampled``; None if it is wrong."""
    match = IMAGE_ID.fullmatch(text)
    return match[1].upper() if match else None


@dataclass(frozen=True)
class IsicChallenge(ABC):
    """The source of one year. A subclass maps its labels to ours."""

    year: int
    id_column: str
    label_columns: tuple[str, ...]
    parts: tuple[Part, ...]
    metadata: dict[Column, str]
    """Our metadata columns, and the year's names for them."""
    masks: tuple[str, ...] = ()
    """Folders of lesion masks."""
    unlabelled_rows: bool = False
    """Whether a row without any positive label is right. In 2017 it means nevus."""

    @abstractmethod
    def map_labels(self, labels: pd.DataFrame) -> pd.DataFrame:
        """The year's label columns as `LABEL_COLUMNS`, float: 1, 0, or NaN for unknown."""

    def cautions(self, collections: Sequence[Collection]) -> list[str]:
        """No warnings; a subclass has its own."""
        return []

    @property
    def name(self) -> str:
        """The year as text."""
        return str(self.year)

    @property
    def holdouts(self) -> frozenset[str]:
        """The splits of the parts other than the training set."""
        return frozenset(part.split for part in self.parts) - {TRAIN}

    def has_labels(self, raw: Path) -> bool:
        """Whether any part's labels lie in the year's folder."""
        return any(find_table(raw / self.name, part.labels) for part in self.parts)

    def read(self, raw: Path, selected: bool, problems: Problems) -> Collection:
        """Read the year's folder."""
        folder = raw / self.name
        tables = ", ".join(f"{part.labels}.csv" for part in self.parts)
        remedy = "Get them with `data download`, or leave the year out of --years."
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder. ISIC {self.name} ({tables}) should be there. {remedy}")
        if not self.has_labels(raw):
            raise DataError(f"{folder}: no labels of ISIC {self.name} here: looked for {tables}. {remedy}")
        contents = [self._read_part(folder, part, selected, problems) for part in self.parts]
        files: dict[str, tuple[Path, ...]] = {}
        for content in contents:
            files |= {image_id: (*files.get(image_id, ()), *paths) for image_id, paths in content.files.items()}
        masks = {
            image_id: paths[0] for name in self.masks for image_id, paths in find_files(folder, name, MASK_FILE).items()
        }
        records = pd.concat([content.records for content in contents if content.records is not None], ignore_index=True)
        suffixed = int(records.pop("entry").str.lower().str.endswith(_SUFFIX).sum())
        remarks = (f"{suffixed} ids carry the suffix {_SUFFIX}, which is no part of the id.",) if suffixed else ()
        notes = tuple(note for content in contents for note in content.notes)
        return Collection(self.name, records, files, masks, notes, remarks, selected)

    def _read_part(self, folder: Path, part: Part, selected: bool, problems: Problems) -> _Content:
        images = find_files(folder, part.images, IMAGE_FILE)
        path = find_table(folder, part.labels)
        if path is None:
            note = f"{len(images)} images in {part.images} have no labels: no {part.labels}.csv"
            return _Content(None, {}, [note] if images else [])
        ids = IdColumn(self.id_column, base_id, "must be ISIC_ and seven digits")
        labels = read_labels(path, ids, self.label_columns, self.unlabelled_rows, problems)
        records = pd.concat([labels[["image_id", "entry"]], self.map_labels(labels)], axis=1)
        # The metadata of 2019's test set does not name lesions.
        columns = {ours: theirs for ours, theirs in self.metadata.items() if part.split == TRAIN or ours != "lesion_id"}
        metadata = find_table(folder, part.metadata, part.images)
        if metadata is not None:
            records = records.merge(read_metadata(metadata, ids, columns, problems), on="image_id", how="left")
        elif selected and "lesion_id" in columns:
            raise DataError(
                f"{folder / part.metadata}.csv: is missing, and it alone says which images show one lesion. "
                "Without it lesions would lie in two folds. Get it with `data download --parts labels`."
            )
        records = records.assign(split=part.split).reindex(columns=["entry", *RECORD_COLUMNS])
        unlabelled = len(images.keys() - set(records["image_id"]))
        note = f"{unlabelled} images in {part.images} have no row in {path.name}"
        return _Content(records, images, [note] if unlabelled else [])

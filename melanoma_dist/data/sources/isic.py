"""The ISIC challenges of 2017 to 2019: how they are read. What differs between the years stands in one file per year.

A table is found by its official name, or by its columns and the words train, validation or test in its path.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from melanoma_dist.data.groups import TRAIN
from melanoma_dist.data.labels import LABEL_COLUMNS
from melanoma_dist.data.raw_folder import Files, RawFolder, TableFile
from melanoma_dist.data.sources.coverage import Official, count_gap, count_note, coverage_gap
from melanoma_dist.data.sources.isic_layout import IMAGE_FILE, IMAGE_ID, MASK_FILE
from melanoma_dist.data.sources.source import RECORD_COLUMNS, Collection
from melanoma_dist.data.tables import Column, IdColumn, Problems, read_labels, read_metadata
from melanoma_dist.errors import DataError

_SUFFIX = "_downsampled"
_SPLIT = re.compile(r"(?<![a-z])(train|val|test)(?:ing|id|idation)?(?![a-z])")
_YEAR = re.compile(r"201[789]")


class Part(NamedTuple):
    """One split of a year: its counts, the folder of its images and the names of its tables, without ``.csv``."""

    split: str
    official: Official
    images: str
    labels: str
    metadata: str


def make_parts(prefix: str, splits: dict[str, tuple[str, Official]], *tables: str) -> tuple[Part, ...]:
    """The parts of a year whose names differ only in the split: ``splits`` has the challenge's name of each split."""
    return tuple(
        Part(split, official, *(f"{prefix}_{name}_{table}" for table in tables))
        for split, (name, official) in splits.items()
    )


class MaskPart(NamedTuple):
    """The images with lesion masks of one split of a year: the folders of both. Their diagnosis may be unknown."""

    split: str
    images: str
    masks: str


class _Content(NamedTuple):
    """The content of a part; ``records`` is None if it has no table of labels."""

    records: pd.DataFrame | None
    files: Files
    notes: list[str]
    remarks: list[str]
    gaps: list[str]


class Metadata(NamedTuple):
    """A table with facts about the images of a part."""

    path: Path
    ids: IdColumn
    columns: dict[Column, str]
    """Our metadata columns, and the table's names for them."""


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
    masks: tuple[MaskPart, ...] = ()
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

    def has_labels(self, raw: RawFolder) -> bool:
        """Whether any part's labels lie in the raw folder."""
        return any(self.labels_table(raw, part) for part in self.parts)

    def read(self, raw: RawFolder, selected: bool, problems: Problems) -> Collection:
        """Read the year's tables, and find its images and masks."""
        contents = [self._read_part(raw, part, selected, problems) for part in self.parts]
        ids = {name for content in contents if content.records is not None for name in content.records["image_id"]}
        contents += [self._read_masks(raw, part, ids) for part in self.masks if selected]
        if all(content.records is None for content in contents):
            raise DataError(self._no_labels(raw))
        files: dict[str, tuple[Path, ...]] = {}
        for content in contents:
            files |= {image_id: (*files.get(image_id, ()), *paths) for image_id, paths in content.files.items()}
        records = pd.concat([content.records for content in contents if content.records is not None], ignore_index=True)
        labelled = set(records["image_id"])
        if selected and not labelled and not problems.count:
            raise DataError(self._no_labels(raw))
        suffixed = int(records.pop("entry").str.lower().str.endswith(_SUFFIX).sum())
        remarks = [f"{suffixed} ids carry the suffix {_SUFFIX}, which is no part of the id."] if suffixed else []
        return Collection(
            self.name,
            records,
            files,
            masks={image_id: paths[0] for image_id, paths in self._mask_files(raw, *self.masks).items()},
            elsewhere={image_id: paths for image_id, paths in raw.files(IMAGE_FILE).items() if image_id in labelled},
            notes=(*(note for content in contents for note in content.notes), *self._unused(raw)),
            remarks=(*(remark for content in contents for remark in content.remarks), *remarks),
            gaps=tuple(gap for content in contents for gap in content.gaps),
            selected=selected,
        )

    def _mask_files(self, raw: RawFolder, *parts: MaskPart) -> Files:
        return raw.files(MASK_FILE, [part.masks for part in parts])

    def _read_masks(self, raw: RawFolder, part: MaskPart, labelled: Set[str]) -> _Content:
        """The images of a part that have a mask and are not ``labelled``."""
        files, masks = raw.files(IMAGE_FILE, (part.images,)), self._mask_files(raw, part)
        if not files or not masks:
            return _Content(None, {}, [], [], [])
        ids = sorted((files.keys() & masks.keys()) - labelled)
        without = files.keys() - masks.keys() - labelled
        records = pd.DataFrame({"image_id": ids, "entry": ids, "split": part.split})
        records = records.reindex(columns=["entry", *RECORD_COLUMNS])
        remark = f"{part.split}: {len(ids)} images with a mask and without labels, from {part.images}."
        return _Content(
            records.astype(dict.fromkeys(LABEL_COLUMNS, "float64")) if ids else None,
            {image_id: files[image_id] for image_id in ids},
            [f"{len(without)} images in {part.images} have neither labels nor a mask in {part.masks}"] * bool(without),
            [remark] if ids else [],
            [],
        )

    def labels_table(self, raw: RawFolder, part: Part) -> TableFile | None:
        """The table of a part's labels."""
        return raw.table(part.labels, (self.id_column, *self.label_columns), self._unnamed(raw, part))

    def read_labels(self, path: Path, part: Part, problems: Problems) -> pd.DataFrame:
        """``image_id``, ``entry`` and the year's label columns of the table that `labels_table` found."""
        return read_labels(path, self._ids(), self.label_columns, self.unlabelled_rows, problems)

    def metadata_table(self, raw: RawFolder, part: Part) -> Metadata | None:
        """The table with facts about a part's images."""
        # The metadata of 2019's test set does not name lesions.
        columns = {
            ours: theirs for ours, theirs in self.metadata.items() if part.official.lesions or ours != "lesion_id"
        }
        table = raw.table(part.metadata, (self.id_column, *columns.values()), self._unnamed(raw, part))
        return Metadata(table.path, self._ids(), columns) if table and columns else None

    def _ids(self) -> IdColumn:
        return IdColumn(self.id_column, base_id, "must be ISIC_ and seven digits")

    def _unnamed(self, raw: RawFolder, part: Part) -> list[TableFile]:
        """The tables that may be a part's under another name: their path speaks of this split, and of no other year."""
        split = part.split.removeprefix(f"{self.name}-")
        return [
            table
            for table in raw.tables
            if set(_YEAR.findall(raw.name(table.path))) <= {self.name}
            and split.startswith(tuple(_SPLIT.findall(raw.name(table.path).lower())[-1:]))
        ]

    def _unused(self, raw: RawFolder) -> list[str]:
        """Notes about tables of labels that no part reads: they may name a test set."""
        tables = [self.labels_table(raw, part) for part in self.parts]
        contents = {table.path.read_bytes() for table in tables if table}
        return [
            f"does not use {raw.name(table.path)}, which has the columns of labels: give it its official name if it "
            "belongs here, or move it away"
            for table in raw.tables
            if {self.id_column, *self.label_columns} <= set(table.header) and table.path.read_bytes() not in contents
        ]

    def _no_labels(self, raw: RawFolder) -> str:
        columns = (self.id_column, *self.label_columns)
        return (
            f"--raw {raw.folder}: holds no labels of ISIC {self.name}. "
            f"Looked for {', '.join(f'{part.labels}.csv' for part in self.parts)}, and for tables with the columns "
            f"{', '.join(columns)} and the word train, validation or test in their name or folder. "
            f"Tables found: {raw.describe_tables(columns)}. Images found: {raw.describe_images()}. "
            "Point --raw at a folder above tables and images, get the tables with "
            f"`data download --years {self.name} --parts labels`, or leave the year out of --years."
        )

    def _read_part(self, raw: RawFolder, part: Part, selected: bool, problems: Problems) -> _Content:
        files = raw.files(IMAGE_FILE, (part.images,))
        table = self.labels_table(raw, part)
        if table is None:
            note = f"{len(files)} images in {part.images} have no labels: no {part.labels}.csv"
            return _Content(None, {}, [note] if files else [], [], [])
        labels, metadata = self.read_labels(table.path, part, problems), self.metadata_table(raw, part)
        records = pd.concat([labels[["image_id", "entry"]], self.map_labels(labels)], axis=1)
        taken, gap = [f"labels from {raw.name(table.path)}"], ""
        if metadata:
            about = read_metadata(*metadata, problems)
            taken.append(f"{' '.join(metadata.columns)} from {raw.name(metadata.path)}")
            gap = coverage_gap(records, about)
            records = records.merge(about, on="image_id", how="left")
        records = records.assign(split=part.split).reindex(columns=["entry", *RECORD_COLUMNS])
        if metadata or selected:
            gap = gap or count_gap(records, part.official)
        ids = set(records["image_id"])
        unlabelled = len(files.keys() - ids)
        notes = [f"{unlabelled} images in {part.images} have no row in {table.path.name}"] if unlabelled else []
        if note := count_note(records, part.official):
            notes.append(f"{raw.name(table.path)}: {note}")
        remark = f"{part.split}: {'; '.join(taken)}."
        missing = f"{part.metadata}.csv is missing" if part.official.lesions else raw.name(table.path)
        cause = raw.name(metadata.path) if metadata else missing
        return _Content(records, files, notes, [remark], [f"{cause}: {gap}"] if gap else [])

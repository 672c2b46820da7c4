"""The three challenges' own folders and tables, read into one form.

A year is a folder (``2017``, ``2018``, ``2019``) with the files as the challenge names them. What each year calls
things is data, at the top; how it is read is the same for all; what its labels mean stands at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_dist.data.labels import DIAGNOSES, LABEL_COLUMNS
from melanoma_dist.data.layout import IMAGE_FILE, MASK_FILE, find_files, find_table
from melanoma_dist.data.tables import Problems, read_labels, read_metadata
from melanoma_dist.errors import DataError

_RECORD_COLUMNS = ("image_id", "downsampled", "year", "split", *LABEL_COLUMNS, "lesion_id", "age", "sex", "site")


@dataclass(frozen=True)
class _Part:
    """One split of a year: the folder of its images and the tables about them (names without ``.csv``)."""

    split: str
    images: str
    labels: str
    metadata: str


@dataclass(frozen=True)
class _Layout:
    """How a year names its files and columns; ``metadata`` maps our column to the year's."""

    id_column: str
    label_columns: tuple[str, ...]
    parts: tuple[_Part, ...]
    metadata: dict[str, str]
    masks: tuple[str, ...] = ()
    may_be_none: bool = False
    """Whether a row without any label is right: in 2017 it means nevus."""


def _parts_2017() -> Iterator[_Part]:
    for split, name in (("train", "Training"), ("2017-validation", "Validation"), ("2017-test", "Test_v2")):
        prefix = f"ISIC-2017_{name}"
        yield _Part(split, f"{prefix}_Data", f"{prefix}_Part3_GroundTruth", f"{prefix}_Data_metadata")


def _parts_2018() -> Iterator[_Part]:
    for split, name in (("train", "Training"), ("2018-validation", "Validation"), ("2018-test", "Test")):
        prefix = f"ISIC2018_Task3_{name}"
        yield _Part(split, f"{prefix}_Input", f"{prefix}_GroundTruth", f"{prefix}_LesionGroupings")


def _parts_2019() -> Iterator[_Part]:
    for split, name in (("train", "Training"), ("2019-test", "Test")):
        prefix = f"ISIC_2019_{name}"
        yield _Part(split, f"{prefix}_Input", f"{prefix}_GroundTruth", f"{prefix}_Metadata")


_LAYOUTS = {
    2017: _Layout(
        id_column="image_id",
        label_columns=("melanoma", "seborrheic_keratosis"),
        parts=tuple(_parts_2017()),
        metadata={"age": "age_approximate", "sex": "sex"},
        masks=tuple(f"ISIC-2017_{name}_Part1_GroundTruth" for name in ("Training", "Validation", "Test_v2")),
        may_be_none=True,
    ),
    2018: _Layout(
        id_column="image",
        label_columns=("MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"),
        parts=tuple(_parts_2018()),
        metadata={"lesion_id": "lesion_id"},
        # The images of Task 1-2 carry no diagnosis: only their masks are used, for images that another year labels.
        masks=tuple(f"ISIC2018_Task1_{name}_GroundTruth" for name in ("Training", "Validation", "Test")),
    ),
    2019: _Layout(
        id_column="image",
        label_columns=(*DIAGNOSES, "UNK"),
        parts=tuple(_parts_2019()),
        metadata={"lesion_id": "lesion_id", "age": "age_approx", "sex": "sex", "site": "anatom_site_general"},
    ),
}

YEARS = tuple(_LAYOUTS)
OFFICIAL_HOLDOUTS = frozenset(part.split for layout in _LAYOUTS.values() for part in layout.parts) - {"train"}
"""The challenges' own validation and test sets: "2017-test" and the like."""


@dataclass(frozen=True)
class Year:
    """What one year's folder holds."""

    year: int
    records: pd.DataFrame
    """One row per labelled image: image_id, downsampled (whether the table's id has the suffix ``_downsampled``), year,
    split ("train" or a holdout), the label columns (1, 0, NaN), lesion_id, age (years), sex, site."""
    files: dict[str, tuple[Path, ...]]
    """The image files on the disk by image id; more than one where an id lies there twice."""
    masks: dict[str, Path]
    """Lesion masks by image id; the images need not be this year's."""
    notes: tuple[str, ...]
    """What was seen and left out."""
    wanted: bool = True
    """False for a year that lies on the disk and was not asked for: what it knows of others' images counts."""


def read_years(raw: Path, years: tuple[int, ...]) -> list[Year]:
    """Read the folders of ``years`` under ``raw``, and the tables of the other years that lie there.

    A year that was not asked for may know that an image is of a test set, or which lesion it shows.
    Raises DataError for a wanted folder that is missing, holds no table of labels or none of lesions, and one for all
    wrong rows together.
    """
    unknown = sorted(set(years) - set(YEARS))
    if unknown or not years:
        raise DataError(f"--years {' '.join(map(str, years))}: must be among {', '.join(map(str, YEARS))}.")
    if not raw.is_dir():
        wanted = ", ".join(str(raw / str(year)) for year in years)
        raise DataError(
            f"{raw}: no such folder. It should hold the challenges' files, one folder per year: {wanted}. "
            "Get them with `data download`, or try the program without any data: `--data demo`."
        )
    problems = Problems()
    readers = [_YearReader(raw / str(year), year, year in years, problems) for year in YEARS]
    found = [reader.read() for reader in readers if reader.wanted or reader.has_labels()]
    problems.raise_any()
    return found


@dataclass
class _YearReader:
    folder: Path
    year: int
    wanted: bool
    problems: Problems
    files: dict[str, tuple[Path, ...]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.layout = _LAYOUTS[self.year]

    def read(self) -> Year:
        self._require_tables()
        records = [table for part in self.layout.parts if (table := self._read_part(part)) is not None]
        masks = {
            image_id: files[0]
            for name in self.layout.masks
            for image_id, files in find_files(self.folder, name, MASK_FILE).items()
        }
        together = pd.concat(records, ignore_index=True)
        return Year(self.year, together, self.files, masks, tuple(self.notes), self.wanted)

    def has_labels(self) -> bool:
        return any(find_table(self.folder, part.labels) for part in self.layout.parts)

    def _require_tables(self) -> None:
        wanted = ", ".join(f"{part.labels}.csv" for part in self.layout.parts)
        remedy = "Get them with `data download`, or leave the year out of --years."
        if not self.folder.is_dir():
            raise DataError(f"{self.folder}: no such folder. ISIC {self.year} ({wanted}) should be there. {remedy}")
        if not self.has_labels():
            raise DataError(f"{self.folder}: no labels of ISIC {self.year} here: looked for {wanted}. {remedy}")

    def _read_part(self, part: _Part) -> pd.DataFrame | None:
        """The records of one split, or None when its labels are not here."""
        images = find_files(self.folder, part.images, IMAGE_FILE)
        path = find_table(self.folder, part.labels)
        if path is None:
            if images:
                self.notes.append(f"{len(images)} images in {part.images} have no labels: no {part.labels}.csv")
            return None
        layout = self.layout
        labels = read_labels(path, layout.id_column, layout.label_columns, layout.may_be_none, self.problems)
        records = pd.concat([labels[["image_id", "downsampled"]], _MEANINGS[self.year](labels)], axis=1)
        metadata, columns = find_table(self.folder, part.metadata, part.images), self._metadata_columns(part)
        if metadata is not None:
            about = read_metadata(metadata, layout.id_column, columns, self.problems)
            records = records.merge(about, on="image_id", how="left")
        elif self.wanted and "lesion_id" in columns:
            raise DataError(
                f"{self.folder / part.metadata}.csv: is missing, and it alone says which images show one lesion. "
                "Without it lesions would lie in two folds. Get it with `data download --parts labels`."
            )
        records = records.reindex(columns=list(_RECORD_COLUMNS))
        records["year"] = self.year
        records["split"] = part.split
        self.files |= {image_id: (*self.files.get(image_id, ()), *paths) for image_id, paths in images.items()}
        if unlabelled := len(images.keys() - set(records["image_id"])):
            self.notes.append(f"{unlabelled} images in {part.images} have no row in {path.name}")
        return records

    def _metadata_columns(self, part: _Part) -> dict[str, str]:
        # The metadata of 2019's test does not name lesions.
        return {k: v for k, v in self.layout.metadata.items() if part.split == "train" or k != "lesion_id"}


def _meaning_2017(labels: pd.DataFrame) -> pd.DataFrame:
    """Melanoma, seborrheic keratosis (a benign keratosis), and nothing else but nevi."""
    meaning = pd.DataFrame(0.0, index=labels.index, columns=list(LABEL_COLUMNS))
    meaning["MEL"] = labels["melanoma"]
    meaning["BKL"] = labels["seborrheic_keratosis"]
    meaning["NV"] = 1.0 - meaning["MEL"] - meaning["BKL"]
    return meaning


def _meaning_2018(labels: pd.DataFrame) -> pd.DataFrame:
    """AKIEC is AK or SCC: which of them remains unknown where it is 1."""
    meaning = labels.reindex(columns=list(LABEL_COLUMNS))
    meaning["AK"] = meaning["SCC"] = np.where(labels["AKIEC"] == 1, np.nan, 0.0)
    return meaning


def _meaning_2019(labels: pd.DataFrame) -> pd.DataFrame:
    """The eight as named; UNK, which only the test has, is none of them."""
    meaning = labels.reindex(columns=list(LABEL_COLUMNS))
    meaning["AKIEC"] = labels[["AK", "SCC"]].max(axis=1)
    return meaning


_MEANINGS = {2017: _meaning_2017, 2018: _meaning_2018, 2019: _meaning_2019}

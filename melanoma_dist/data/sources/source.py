"""The seam between a collection's own files and the data room: a `Source` reads them into a `Collection`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import pandas as pd

from melanoma_dist.data.groups import TRAIN
from melanoma_dist.data.labels import LABEL_COLUMNS, contradicts_akiec, has_two_diagnoses, label_columns
from melanoma_dist.data.raw_folder import RawFolder
from melanoma_dist.data.schema import IMAGE_ID_RULE, is_image_id
from melanoma_dist.data.tables import OLDEST_YEARS, VOCABULARY, Problems
from melanoma_dist.errors import DataError

RECORD_COLUMNS = ("image_id", "split", *LABEL_COLUMNS, "lesion_id", "patient_id", "age", "sex", "site")


@dataclass(frozen=True)
class Collection:
    """The content of one source."""

    name: str
    records: pd.DataFrame
    """One row per labelled image, `RECORD_COLUMNS`: image_id (unique), split ("train" or a holdout of the source), the
    label columns (1, 0 or NaN for unknown), lesion_id, patient_id, age (years), sex, site; blank where unknown. Further
    columns in capitals are further labels."""
    files: Mapping[str, tuple[Path, ...]]
    """Image files by image id; several if an id has more than one file."""
    masks: Mapping[str, Path] = field(default_factory=dict)
    """Lesion masks by image id. Their images may belong to other collections."""
    elsewhere: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)
    """Files in other folders than the collection's own, for images of which no collection has a file."""
    notes: tuple[str, ...] = ()
    """Warnings: what was left out."""
    remarks: tuple[str, ...] = ()
    """Observations that call for no action, such as what was read for what."""
    selected: bool = True
    """False if the request does not name it: then only its lesions, patients and official splits count."""
    gaps: tuple[str, ...] = ()
    """Tables that say too little about their images. They are refused unless the request accepts them."""
    duplicates: tuple[tuple[str, str], ...] = ()
    """Pairs of image ids that the collection's own list calls copies of one photograph."""
    terms: str = ""
    """Its licence and how to cite it, where its description tells them."""
    own_ids: bool = False
    """Whether ids of images, lesions and patients are the collection's own: the same ids elsewhere are others."""


class Source(Protocol):
    """Knows where one collection keeps its tables, images and masks, and what its labels mean."""

    @property
    def name(self) -> str:
        """Its name in ``--years`` and in the manifest, such as "2019"."""

    @property
    def year(self) -> int:
        """The year of publication. Sources are read in this order, and ``--conflicts newest`` prefers later ones."""

    @property
    def holdouts(self) -> frozenset[str]:
        """The official validation and test splits, such as "2017-test"."""

    def has_labels(self, raw: RawFolder) -> bool:
        """Whether a table of labels lies in the raw folder."""

    def read(self, raw: RawFolder, selected: bool, problems: Problems) -> Collection:
        """Read tables and list files. Wrong rows go into ``problems``; raises DataError if tables are missing."""

    def cautions(self, collections: Sequence[Collection]) -> list[str]:
        """Warnings that depend on which other collections were read."""


def check_collection(source: Source, collection: Collection) -> None:
    """Raise DataError unless a collection keeps the promises that `Collection` documents."""
    if missing := set(RECORD_COLUMNS) - set(collection.records):
        raise DataError(f"collection {source.name}: its records miss the columns {', '.join(sorted(missing))}.")
    for rule, wrong in (*_of_ids_and_labels(source, collection), *_of_metadata(collection.records)):
        if wrong:
            raise DataError(
                f"collection {source.name}: {rule}; {len(wrong)} are not, such as {min(wrong, key=str)!r}. "
                f"Correct what the source's `read` returns."
            )


def _of_ids_and_labels(source: Source, collection: Collection) -> Iterator[tuple[str, list[object]]]:
    """Rules, each with what breaks it."""
    ids, labels = collection.records["image_id"], collection.records[list(label_columns(collection.records))]
    splits = {TRAIN, *source.holdouts}
    yield f"an image id must be {IMAGE_ID_RULE}", [each for each in (*ids, *collection.files) if not is_image_id(each)]
    yield "an image id must be unique", list(ids[ids.duplicated()])
    yield f"a split must be one of {', '.join(sorted(splits))}", list(set(collection.records["split"]) - splits)
    yield "labels must be 0, 1 or unknown", list(ids[~(labels.isna() | labels.isin([0, 1])).all(axis=1)])
    yield "an image must have at most one diagnosis", list(ids[has_two_diagnoses(labels)])
    yield "AKIEC must be 1 where AK or SCC is 1, and 0 where both are 0", list(ids[contradicts_akiec(labels)])


def _of_metadata(records: pd.DataFrame) -> Iterator[tuple[str, list[object]]]:
    ids, known = records["image_id"], records.notna()
    years = pd.to_numeric(records["age"], "coerce").between(0, OLDEST_YEARS)
    yield f"an age must be 0 to {OLDEST_YEARS}, or blank", list(ids[known["age"] & ~years])
    for column, words in VOCABULARY.items():
        rule = f"{column} must be {', '.join(words)}, or blank"
        yield rule, list(ids[known[column] & ~records[column].isin(words)])

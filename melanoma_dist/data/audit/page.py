"""The page of ``data audit``: one self-contained HTML file with the tables, the checks and the images."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from melanoma_dist.config.label_sets import label_set
from melanoma_dist.data.audit import counts
from melanoma_dist.data.audit.inspection import SYNTHETIC, Inspection
from melanoma_dist.data.duplicates import MIN_CORRELATION
from melanoma_dist.data.labels import label_columns
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.errors import DataError
from melanoma_dist.pages.environment import render
from melanoma_dist.pages.tables import Cell, Table, plain
from melanoma_dist.storage import atomic
from melanoma_dist.storage.images import open_image

_SIDE = 176  # pixels of a thumbnail's longer side: enough to compare two of them by eye
_QUALITY = 78  # of its JPEG; about 4 KB each
_PAIRS = 300  # pairs with pictures per list: keeps the page below 15 MB for 58,000 images
_SHEET = 24  # images of a contact sheet


class Picture(NamedTuple):
    """An image as the page shows it."""

    image_id: str
    data: str
    """A data: URI."""
    width: int
    height: int
    diagnosis: str
    listed: str
    split: str
    lesion: str
    group: str


class Pair(NamedTuple):
    """Two images side by side, with the evidence that they are copies."""

    left: Picture
    right: Picture
    evidence: list[str]


class Pairs(NamedTuple):
    """Pairs: the first ones with pictures, of the others only the ids."""

    pictured: list[Pair]
    others: list[tuple[str, str]]


class Sheet(NamedTuple):
    """A sample of the images of a label."""

    label: str
    positives: int
    pictures: list[Picture]


def write_page(inspection: Inspection, path: Path) -> None:
    """Write the page, whole or not at all. The same inspection gives the same bytes.

    Raises DataError if the path cannot be written or a shard is corrupt.
    """
    page = _render(inspection)
    try:
        atomic.write_text(path, page)
    except OSError as error:
        raise DataError(f"{path}: the page cannot be written ({error.strerror}). Choose another --html.") from error


def _render(inspection: Inspection) -> str:
    dataset, copies, request = inspection.dataset, inspection.copies, inspection.request
    album = _Album(dataset)
    images = dataset.manifest
    several = images[images["group"].duplicated(keep=False)]
    return render(
        "data/audit/page.html.j2",
        name=dataset.folder.resolve().name,
        synthetic=SYNTHETIC if dataset.synthetic else "",
        facts=_facts(inspection),
        notes=[*inspection.description.notes, *inspection.description.incomplete_tables],
        checks=inspection.checks,
        failed=sum(not check.passed for check in inspection.checks),
        tables=[_table(table) for table in inspection.tables],
        joined=_pairs(copies[copies["joined"]], album),
        rejected=_pairs(copies[~copies["joined"]], album),
        groups=[(str(group), list(ids)) for group, ids in several.groupby("group")["image_id"]],
        sheets=list(_sheets(images, album, request.seed)),
        metadata=[
            _table(counts.sizes(images)),
            *(_shaded(table) for table in counts.metadata(images, label_set(request.labels, request.headline))),
        ],
    )


class _Album:
    """Thumbnails of a data set's images, by image id."""

    def __init__(self, dataset: Dataset) -> None:
        self._reader = ShardReader(dataset)
        self.images = dataset.manifest
        self._positions = pd.Index(self.images["image_id"])

    def picture(self, image_id: str) -> Picture:
        position = int(self._positions.get_indexer(pd.Index([image_id]))[0])
        row = self.images.iloc[position]
        image = open_image(self._reader.jpeg(position).tobytes())
        image.draft("RGB", (2 * _SIDE, 2 * _SIDE))  # JPEG decodes faster at 1/2, 1/4 or 1/8 of its size
        small = image.convert("RGB")
        small.thumbnail((_SIDE, _SIDE))
        file = io.BytesIO()
        small.save(file, "JPEG", quality=_QUALITY, optimize=True)
        diagnosis = " ".join(label for label in label_columns(self.images) if row[label] == 1)
        return Picture(
            image_id,
            "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode(),
            *small.size,
            diagnosis or "no label",
            row["listed"],
            row["split"],
            "" if pd.isna(row["lesion_id"]) else row["lesion_id"],
            row["group"],
        )


def _facts(inspection: Inspection) -> list[tuple[str, str]]:
    request, about = inspection.request, inspection.description
    facts = [
        ("fingerprint", inspection.dataset.fingerprint),
        ("folds", f"{request.folds} of labels {request.labels}, seed {request.seed}"),
    ]
    hidden = ("fingerprint", "notes", "incomplete_tables", "tables")
    return facts + [(key, _words(value)) for key, value in about.content.items() if key not in hidden]


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(str(inner) for inner in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _pairs(joins: pd.DataFrame, album: _Album) -> Pairs:
    """The pairs of some joins, each once: pairs in two groups first, then those closest to the threshold."""
    groups = album.images.set_index("image_id")["group"]
    ends = [joins["image_id"], joins["other_id"]]
    # Only the evidence of near-duplicates ends with a correlation; without one the margin is NaN and sorts last.
    margin = (joins["evidence"].str.extract(r"(\d\.\d+)$")[0].astype(float) - MIN_CORRELATION).abs()
    apart = ends[0].map(groups).to_numpy() != ends[1].map(groups).to_numpy()
    order = pd.DataFrame({"one": ~apart, "margin": margin}).groupby(ends).min().sort_values(["one", "margin"]).index
    evidence = (joins["reason"] + ": " + joins["evidence"]).groupby(ends).agg(list)
    pictured = [Pair(album.picture(a), album.picture(b), evidence[a, b]) for a, b in order[:_PAIRS]]
    return Pairs(pictured, list(order[_PAIRS:]))


def _sheets(images: pd.DataFrame, album: _Album, seed: int) -> Iterator[Sheet]:
    for label in label_columns(images):
        positive = images[images[label] == 1]
        chosen = positive.sample(min(_SHEET, len(positive)), random_state=seed)["image_id"].sort_values()
        yield Sheet(label, len(positive), [album.picture(image_id) for image_id in chosen])


def _table(table: counts.CountTable) -> Table:
    return Table(table.title, table.header, [[plain(value) for value in row] for row in table.rows])


def _shaded(table: counts.CountTable) -> Table:
    """Draw behind each number its share of the column."""
    numbers = np.array([row[1:] for row in table.rows], dtype=np.int64)
    shares = numbers / np.maximum(numbers.sum(axis=0), 1)
    rows = [
        [plain(row[0]), *(Cell(f"{count:,}", share=share) for count, share in zip(row[1:], part, strict=True))]
        for row, part in zip(table.rows, shares.tolist(), strict=True)
    ]
    return Table(table.title, table.header, rows)

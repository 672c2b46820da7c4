"""The page of ``data audit``: one self-contained HTML file with the figures, the proofs and the pictures behind them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from jinja2 import Environment, StrictUndefined
from PIL import Image

from melanoma_dist.data import figures
from melanoma_dist.data.figures import Figure
from melanoma_dist.data.inspection import SYNTHETIC, Inspection
from melanoma_dist.data.labels import LABEL_COLUMNS, LABEL_SETS
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.errors import DataError

_TEMPLATE = "audit_page.html.j2"
_SIDE = 176  # pixels of a thumbnail's longer side: two of them, side by side, can be compared by eye
_QUALITY = 78  # of its JPEG; about 4 KB each
_PAIRS = 300  # pairs with pictures in either list, so that the page stays below 15 MB on 58,000 images
_SHEET = 24  # images of a contact sheet


class Picture(NamedTuple):
    """An image as the page shows it."""

    image_id: str
    data: str
    """A data: URI."""
    width: int
    height: int
    diagnosis: str
    split: str
    lesion: str
    group: str


class Pair(NamedTuple):
    """Two images side by side, and every reason that speaks for or against them."""

    left: Picture
    right: Picture
    evidence: list[str]
    remarks: list[str]


class Pairs(NamedTuple):
    """Those that are shown with pictures, and the ids of the others."""

    shown: list[Pair]
    others: list[tuple[str, str]]


class Sheet(NamedTuple):
    """A sample of the images of a label."""

    label: str
    count: int
    pictures: list[Picture]


def write_page(inspection: Inspection, path: Path) -> None:
    """Write the page, whole or not at all. The same inspection gives the same bytes.

    Raises DataError for a place that cannot be written and for damaged shards.
    """
    page = _render(inspection)
    aside = path.with_name(path.name + ".tmp")
    try:
        aside.write_text(page, encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise DataError(f"{path}: the page cannot be written ({error.strerror}). Choose another --html.") from error


def _render(inspection: Inspection) -> str:
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["cell"] = _cell
    template = environment.from_string(resources.files("melanoma_dist.data").joinpath(_TEMPLATE).read_text("utf-8"))
    dataset, copies = inspection.dataset, inspection.copies
    album = _Album(dataset)
    images = dataset.manifest
    return template.render(
        name=dataset.folder.resolve().name,
        synthetic=SYNTHETIC if dataset.synthetic else "",
        facts=_facts(inspection),
        notes=inspection.description.get("notes", []),
        checks=inspection.checks,
        failed=sum(not check.passed for check in inspection.checks),
        figures=inspection.figures,
        joined=_pairs(copies[copies["joined"]], album),
        refused=_pairs(copies[~copies["joined"]], album),
        groups=_groups(images),
        sheets=list(_sheets(images, album, inspection.request.seed)),
        about=[figures.sizes(images), *_shares(figures.metadata(images, LABEL_SETS[inspection.request.labels]))],
    )


class _Album:
    """Images of a data set as pictures, by id."""

    def __init__(self, dataset: Dataset) -> None:
        self._reader = ShardReader(dataset)
        self._rows = dataset.manifest
        self._positions = pd.Index(self._rows["image_id"])

    def picture(self, image_id: str) -> Picture:
        position = int(self._positions.get_indexer(pd.Index([image_id]))[0])
        row = self._rows.iloc[position]
        image = Image.open(io.BytesIO(self._reader.jpeg(position).tobytes()))
        image.draft("RGB", (2 * _SIDE, 2 * _SIDE))  # large ones decode faster in half, a quarter, an eighth
        small = image.convert("RGB")
        small.thumbnail((_SIDE, _SIDE))
        file = io.BytesIO()
        small.save(file, "JPEG", quality=_QUALITY, optimize=True)
        diagnosis = " ".join(label for label in LABEL_COLUMNS if row[label] == 1)
        return Picture(
            image_id,
            "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode(),
            *small.size,
            diagnosis or "no label",
            f"{row['listed']}, {row['split']}" if row["split"] != "train" else row["listed"],
            "" if pd.isna(row["lesion_id"]) else row["lesion_id"],
            row["group"],
        )


def _facts(inspection: Inspection) -> list[tuple[str, object]]:
    request, about = inspection.request, inspection.description
    facts = [
        ("fingerprint", inspection.dataset.fingerprint),
        ("folds", f"{request.folds} of labels {request.labels}, seed {request.seed}"),
    ]
    told = {key: value for key, value in about.items() if key not in ("fingerprint", "notes")}
    return facts + [(key, _words(value)) for key, value in told.items()]


def _words(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_words(inner)}" for key, inner in value.items())
    if isinstance(value, list):
        return ", ".join(str(inner) for inner in value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _pairs(joins: pd.DataFrame, album: _Album) -> Pairs:
    """The pairs of some joins, each once; those that were decided most narrowly come first."""
    margin = joins["evidence"].str.extract(r"(\d\.\d+)$")[0].astype(float)  # a correlation, for near-duplicates
    weakest = margin.where(joins["joined"], -margin).groupby([joins["image_id"], joins["other_id"]]).min()
    evidence = (joins["reason"] + ": " + joins["evidence"]).groupby([joins["image_id"], joins["other_id"]]).agg(list)
    order = [tuple(ends) for ends in weakest.sort_values(kind="stable").index]
    shown = [_pair(album, first, second, evidence[first, second]) for first, second in order[:_PAIRS]]
    return Pairs(shown, order[_PAIRS:])


def _pair(album: _Album, first: str, second: str, evidence: list[str]) -> Pair:
    left, right = album.picture(first), album.picture(second)
    remarks = []
    if left.diagnosis != right.diagnosis:
        remarks.append("Their labels differ.")
    if left.lesion and left.lesion == right.lesion:
        remarks.append("The tables call them one lesion.")
    return Pair(left, right, evidence, remarks)


def _groups(images: pd.DataFrame) -> list[tuple[str, list[str]]]:
    """The groups of more than one image."""
    several = images[images["group"].duplicated(keep=False)]
    return [(str(group), list(ids)) for group, ids in several.groupby("group")["image_id"]]


def _sheets(images: pd.DataFrame, album: _Album, seed: int) -> Iterator[Sheet]:
    for label in LABEL_COLUMNS:
        positive = images[images[label] == 1]
        chosen = positive.sample(min(_SHEET, len(positive)), random_state=seed)["image_id"].sort_values()
        yield Sheet(label, len(positive), [album.picture(image_id) for image_id in chosen])


class Share(NamedTuple):
    """A number and its share, 0 to 1, of the column it stands in."""

    count: int
    share: float


def _shares(tables: Iterable[Figure]) -> Iterator[Figure]:
    """Tables whose numbers know their share of the column."""
    for title, header, rows in tables:
        totals = np.maximum(np.sum([row[1:] for row in rows], axis=0), 1)
        told: list[Any] = [
            (row[0], *(Share(count, count / total) for count, total in zip(row[1:], totals, strict=True)))
            for row in rows
        ]
        yield Figure(title, header, told)


def _cell(value: object) -> str:
    """A cell's text: numbers with commas."""
    return f"{value:,}" if isinstance(value, int | np.integer) else str(value)

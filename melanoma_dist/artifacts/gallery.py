"""The pictures of a report: ``gallery/gallery.json`` and the JPEG files beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from melanoma_dist.artifacts.records import read_record, write_record

GALLERY = "gallery"
_FILE = "gallery.json"
_REMEDY = "Bring the file back, or delete summary.json and run the run's own training command again."


@dataclass(frozen=True)
class GalleryImage:
    """An image that the model of its fold calls wrongly."""

    image_id: str
    fold: int
    probability: float
    """Of the headline label, out of fold."""
    diagnosis: str
    picture: str
    """A JPEG file in the gallery; so is ``saliency``."""
    saliency: str | None
    """None where there is no map."""
    speaks: str
    """Whether the map shows evidence for or against the label."""
    why: str
    """Why there is no map; empty where there is one."""
    width: int
    """Pixels of both pictures, as is ``height``."""
    height: int


@dataclass(frozen=True)
class GalleryKind:
    """Errors of one kind, the most confident first."""

    title: str
    errors: tuple[GalleryImage, ...]


@dataclass(frozen=True)
class Gallery:
    """The most confident errors of a run."""

    note: str
    kinds: tuple[GalleryKind, ...]


def write_gallery(run: Path, gallery: Gallery) -> None:
    """Write ``gallery.json`` into the gallery of a run."""
    write_record(run / GALLERY / _FILE, gallery)


def read_gallery(run: Path) -> Gallery | None:
    """Read ``gallery.json``; None for a run without pictures. Raises DataError for a corrupt file."""
    path = run / GALLERY / _FILE
    return read_record(path, Gallery, _REMEDY) if path.is_file() else None

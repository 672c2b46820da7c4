"""The pictures of a segmentation run's report: ``gallery/gallery.json`` and the JPEG files beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from melanoma_dist.artifacts.gallery import GALLERY
from melanoma_dist.artifacts.records import read_record, write_record

_FILE = "gallery.json"
_REMEDY = "Bring the file back, or delete summary.json and run the run's own training command again."


@dataclass(frozen=True)
class MaskPicture:
    """An image with the outlines of its true mask and of the one that its fold's model predicts."""

    image_id: str
    fold: int
    jaccard: float
    """Out of fold, at the size of the stored image."""
    picture: str
    """A JPEG file in the gallery."""
    width: int
    """Pixels of the picture, as is ``height``."""
    height: int


@dataclass(frozen=True)
class MaskPictures:
    """Images of one kind: the worst, those in the middle, or the best."""

    title: str
    pictures: tuple[MaskPicture, ...]


@dataclass(frozen=True)
class MaskGallery:
    """The pictures of a report."""

    note: str
    kinds: tuple[MaskPictures, ...]


def write_mask_pictures(run: Path, gallery: MaskGallery) -> None:
    """Write ``gallery.json`` into the gallery of a run."""
    write_record(run / GALLERY / _FILE, gallery)


def read_mask_pictures(run: Path) -> MaskGallery | None:
    """Read ``gallery.json``; None for a run without pictures. Raises DataError for a corrupt file."""
    path = run / GALLERY / _FILE
    return read_record(path, MaskGallery, _REMEDY) if path.is_file() else None

"""Where the challenges' files lie in a year's folder, and what names they carry (light: a download needs it too)."""

from __future__ import annotations

import re
from pathlib import Path

# ASCII alone: other scripts have digits too, and an S that upper case makes ours.
_FLAGS = re.IGNORECASE | re.ASCII
IMAGE_ID = re.compile(r"(ISIC_[0-9]{7})(_downsampled)?", _FLAGS)
"""An image id, with the suffix that some ids of 2019 carry; the first group is the id."""
# The end anchors matter: 2017 keeps ``ISIC_0000000_superpixels.png`` beside its images.
IMAGE_FILE = re.compile(IMAGE_ID.pattern + r"\.(jpe?g|png)", _FLAGS)
"""The name of an image's file; the first group is the id."""
MASK_FILE = re.compile(IMAGE_ID.pattern + r"_segmentation\.png", _FLAGS)
"""The name of a mask's file; the first group is the id."""


def find_table(folder: Path, name: str, *more: str) -> Path | None:
    """The table ``name`` flat in the year's folder, in a folder of its own name, or in one of the folders ``more``."""
    places = [folder / place / f"{name}.csv" for place in ("", name, *more)]
    return next((path for path in places if path.is_file()), None)


def find_files(folder: Path, name: str, pattern: re.Pattern[str]) -> dict[str, tuple[Path, ...]]:
    """The files in ``name`` by image id; an archive unpacked into a folder of its own name nests it once more."""
    place = folder / name
    place = place / name if (place / name).is_dir() else place
    found: dict[str, tuple[Path, ...]] = {}
    for path in sorted(place.iterdir()) if place.is_dir() else []:
        # A link that leads nowhere, a folder or a pipe has the name of an image and is none.
        if (match := pattern.fullmatch(path.name)) and path.is_file():
            found[match[1].upper()] = (*found.get(match[1].upper(), ()), path)
    return found

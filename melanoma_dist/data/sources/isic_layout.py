"""File names of the ISIC challenges, and how files are found in a year's folder. Light: a download uses it too."""

from __future__ import annotations

import re
from pathlib import Path

from melanoma_dist.storage.images import SUFFIXES

# re.ASCII: other scripts have digits too, and a letter whose upper case is our S.
_FLAGS = re.IGNORECASE | re.ASCII
IMAGE_ID = re.compile(r"(ISIC_[0-9]{7})(_downsampled)?", _FLAGS)
"""An image id with the suffix of some ids of 2019; the first group is the id."""
# Match whole names: 2017 keeps ``ISIC_0000000_superpixels.png`` beside its images.
IMAGE_FILE = re.compile(f"{IMAGE_ID.pattern}({'|'.join(map(re.escape, SUFFIXES))})", _FLAGS)
"""The name of an image file; the first group is the id."""
MASK_FILE = re.compile(IMAGE_ID.pattern + r"_segmentation\.png", _FLAGS)
"""The name of a mask file; the first group is the id."""


def find_table(folder: Path, name: str, *more: str) -> Path | None:
    """The table ``name`` in the year's folder, in a folder of its own name, or in one of the folders ``more``."""
    places = [folder / place / f"{name}.csv" for place in ("", name, *more)]
    return next((path for path in places if path.is_file()), None)


def find_files(folder: Path, name: str, pattern: re.Pattern[str]) -> dict[str, tuple[Path, ...]]:
    """The files of ``folder/name`` by image id; also if an archive was unpacked one folder deeper."""
    place = folder / name
    place = place / name if (place / name).is_dir() else place
    files: dict[str, tuple[Path, ...]] = {}
    for path in sorted(place.iterdir()) if place.is_dir() else []:
        # Broken links, folders and pipes may have the name of an image.
        if (match := pattern.fullmatch(path.name)) and path.is_file():
            files[match[1].upper()] = (*files.get(match[1].upper(), ()), path)
    return files

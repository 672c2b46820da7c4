"""Check that a file holds as many images, masks or rows as the official one.

A server may announce no length of a file. Then only the count reveals a table that was cut between two rows.
"""

from __future__ import annotations

from pathlib import Path

from melanoma_dist.data.download.archive import CorruptArchive
from melanoma_dist.data.download.catalogue import OfficialFile
from melanoma_dist.data.download.transfer import BASE_URL_HINT
from melanoma_dist.data.rows import read_rows
from melanoma_dist.data.sources.isic_layout import IMAGE_FILE, IMAGE_ID, MASK_FILE, find_files, find_table
from melanoma_dist.errors import DownloadError

_PATTERNS = {"images": IMAGE_FILE, "masks": MASK_FILE}


def count_files(folder: Path, name: str, part: str) -> int:
    """Count the images or masks (``part``) in an unpacked archive, as `data prepare` finds them."""
    return len(find_files(folder, name, _PATTERNS[part]))


def require_complete(file: OfficialFile, folder: Path) -> None:
    """Raise DownloadError if an unpacked archive holds fewer files than the catalogue lists."""
    if file.part == "labels":
        require_rows(file, find_table(folder, file.stem) or folder / f"{file.stem}.csv")
        return
    # If the archive holds a file beside its folder, that folder is kept.
    count = count_files(folder.parent, folder.name, file.part) or count_files(folder, file.stem, file.part)
    if count < file.count:
        raise DownloadError(
            f"{file.label}: holds {count} {file.part}, {file.count} are expected, from {file.url}. It was deleted. "
            f"{BASE_URL_HINT} To use your own copy, put the files into {file.year}/{file.stem}: their number is not "
            "checked."
        )


def require_rows(file: OfficialFile, path: Path) -> None:
    """Raise CorruptArchive if a table is missing, another document, or has fewer complete rows than the official one.

    `data prepare` checks the values.
    """
    try:
        header, *rows = (row for _, row in read_rows(path))
    except (FileNotFoundError, ValueError):  # ValueError: not UTF-8, or not even a header
        header, rows = [], []
    if "image" not in ",".join(header):
        raise CorruptArchive(f"{file.label}: is not a table of images.")
    count = sum(len(row) == len(header) and IMAGE_ID.fullmatch(row[0].strip()) is not None for row in rows)
    if count < file.count:
        raise CorruptArchive(f"{file.label}: has {count} complete rows, {file.count} are expected.")

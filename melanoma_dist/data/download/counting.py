"""How many images, masks or rows a file must hold: known from the catalogue, so that half a file never passes for one.

A server that does not say how long a file is leaves nothing else to tell a table that was cut between two rows.
"""

from __future__ import annotations

from pathlib import Path

from melanoma_dist.data.download.archive import CorruptArchive
from melanoma_dist.data.download.catalogue import Item
from melanoma_dist.data.download.transfer import ELSEWHERE
from melanoma_dist.data.rows import read_rows
from melanoma_dist.data.sources.isic_layout import IMAGE_FILE, IMAGE_ID, MASK_FILE, find_files, find_table
from melanoma_dist.errors import DownloadError

PATTERNS = {"images": IMAGE_FILE, "masks": MASK_FILE}


def count_files(folder: Path, name: str, part: str) -> int:
    """The images or masks (``part``) in the folder of an unpacked archive, as `data prepare` finds them."""
    return len(find_files(folder, name, PATTERNS[part]))


def require_all(item: Item, folder: Path) -> None:
    """See that an unpacked archive holds what the catalogue says. Raises DownloadError where it holds less."""
    if item.part == "labels":
        require_rows(item, find_table(folder, item.stem) or folder / f"{item.stem}.csv")
        return
    # A file beside the folder in the archive keeps it one deeper.
    found = count_files(folder.parent, folder.name, item.part) or count_files(folder, item.stem, item.part)
    if found < item.count:
        raise DownloadError(
            f"{item.label}: holds {found} {item.part}, {item.count} are expected, from {item.url}. Nothing of it was "
            f"kept. {ELSEWHERE} Files that you put into {item.year}/{item.stem} yourself are taken as they are."
        )


def require_rows(item: Item, path: Path) -> None:
    """See that a table has the official number of whole rows. (What stands in them, `data prepare` checks.)

    Raises DamagedFile for a page that says something else, a table that was cut, and one that is not there.
    """
    try:
        header, *rows = (row for _, row in read_rows(path))
    except (FileNotFoundError, ValueError):  # ValueError: not UTF-8, or not even a header
        header, rows = [], []
    if "image" not in ",".join(header):
        raise CorruptArchive(f"{item.label}: is not the table of images that it should be.")
    found = sum(len(row) == len(header) and IMAGE_ID.fullmatch(row[0].strip()) is not None for row in rows)
    if found < item.count:
        raise CorruptArchive(f"{item.label}: has {found} whole rows, {item.count} are expected.")

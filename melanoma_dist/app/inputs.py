"""The images that a command names: files, folders of images, and tables with a column of paths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from melanoma_dist import console
from melanoma_dist.data.raw_folder import files_below
from melanoma_dist.data.rows import read_rows
from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.storage.images import SUFFIXES

TABLES = (".csv", ".tsv", ".xlsx")
PATH_COLUMNS = ("image", "path", "file", "filename", "file_name", "filepath", "image_path")
"""Names, in lower case, of the column that holds the paths. The first of these that a table has counts."""


@dataclass(frozen=True)
class InputImage:
    """An image to predict."""

    path: Path
    values: Mapping[str, str] = field(default_factory=dict)
    """The other columns of its row that have a name, if a table lists it."""


def collect_images(inputs: Sequence[Path]) -> list[InputImage]:
    """The images in the order of the inputs, the files of a folder sorted. An image that is named twice occurs twice.

    Raises ConfigError without any image, and DataError for a table that cannot be read.
    """
    images = [image for path in inputs for image in _images_of(path)]
    if not images:
        listed = ", ".join(map(str, inputs))
        raise ConfigError(f"predict: no images in {listed}. Files of a folder need one of the suffixes {_suffixes()}.")
    return images


def _images_of(path: Path) -> Iterator[InputImage]:
    if path.is_dir():
        return _of_folder(path)
    return _of_table(path) if path.suffix.lower() in TABLES else iter([InputImage(path)])


def _of_folder(folder: Path) -> Iterator[InputImage]:
    try:
        files = list(files_below(folder))
    except OSError as error:
        raise ConfigError(f"{error.filename}: cannot be read ({error.strerror}). Make it readable.") from error
    images = [path for path in files if path.suffix.lower() in SUFFIXES]
    if others := len(files) - len(images):
        console.info(
            f"{folder}: left out, without the suffix of an image ({_suffixes()}): {others} of {len(files)} files"
        )
    return map(InputImage, images)


def _suffixes() -> str:
    return ", ".join(SUFFIXES)


def _of_table(path: Path) -> Iterator[InputImage]:
    try:
        rows = read_rows(path, strict=True).rows
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read as a table ({error}).") from error
    header = [name.strip() for name in rows[0][1]] if rows else []
    at = _path_column(path, header)
    for line, row in rows[1:]:
        if any(entry.strip() for entry in row):
            yield _of_row(path, line, dict(zip(header, row, strict=False)), header[at], len(row) == len(header))


def _path_column(path: Path, header: list[str]) -> int:
    """The position of the column of paths. Raises DataError for a header without one, or with a repeated name."""
    if repeated := [name for name, count in Counter(header).items() if name and count > 1]:
        raise DataError(f"{path}: has several columns named {repeated[0]!r}. Give each a name of its own.")
    names = [name.lower() for name in header]
    known = [names.index(name) for name in PATH_COLUMNS if name in names]
    if not known:
        listed = ", ".join(header) or "none"
        raise DataError(
            f"{path}: no column holds the paths of images. Name it one of {', '.join(PATH_COLUMNS)}. Columns: {listed}."
        )
    return known[0]


def _of_row(path: Path, line: int, row: dict[str, str], column: str, complete: bool) -> InputImage:
    if not complete:
        raise DataError(f"{path} line {line}: has another number of fields than the header. Correct this line.")
    entry = row.pop(column).strip()
    if not entry:
        raise DataError(f"{path} line {line}: {column} is empty. Name an image, or delete this line.")
    return InputImage(path.parent / entry, {name: value.strip() for name, value in row.items() if name})

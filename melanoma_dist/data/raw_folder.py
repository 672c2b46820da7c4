"""The files below ``--raw``, listed once: tables by their header, images and masks by their name.

Sources find their files here by what they are, wherever they lie: archives are unpacked in many ways.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from melanoma_dist.data.rows import read_header
from melanoma_dist.errors import DataError
from melanoma_dist.storage.images import SUFFIXES
from melanoma_dist.storage.untrusted import NOWHERE

Files = dict[str, tuple[Path, ...]]
"""Files by image id."""

_SHOWN = 5
_COPY = re.compile(r"( ?\([0-9]+\)| - copy)+$")  # as browsers and Windows name a second copy


class TableFile(NamedTuple):
    """A CSV and its column names."""

    path: Path
    header: tuple[str, ...]

    @property
    def stem(self) -> str:
        """Its name in lower case, without ``.csv`` and without the number of a copy."""
        return _COPY.sub("", self.path.stem.lower())


def count_by_folder(root: Path, paths: Iterable[Path]) -> str:
    """The number of files per folder below ``root``, the largest first, for messages."""
    counts = Counter(path.parent for path in paths).most_common()
    more = [f"{len(counts) - _SHOWN} more folders"] if len(counts) > _SHOWN else []
    return ", ".join([f"{count} in {folder.relative_to(root)}" for folder, count in counts[:_SHOWN]] + more) or "none"


class _Folder(NamedTuple):
    path: Path
    above: frozenset[str]
    """The names, in lower case, of the folder and those that contain it."""
    names: list[str]
    """Its files."""


class RawFolder:
    """All files below a folder, except hidden ones. Links are followed; broken links and pipes are no files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self._folders = list(_walk(folder, frozenset(), set()))
        except OSError as error:
            raise DataError(
                f"{folder}: {error.filename} cannot be read ({error.strerror}). Make it readable, or move it."
            ) from error

    @cached_property
    def tables(self) -> list[TableFile]:
        """The CSVs."""
        return [TableFile(path, read_header(path)) for path in self._paths() if path.suffix.lower() == ".csv"]

    def _paths(self) -> Iterator[Path]:
        return (folder / name for folder, _, names in self._folders for name in names)

    def name(self, path: Path) -> str:
        """A path below the folder, for messages; another path as it is."""
        return path.relative_to(self.folder).as_posix() if path.is_relative_to(self.folder) else str(path)

    def table(self, name: str, columns: Collection[str], where: Iterable[TableFile]) -> TableFile | None:
        """The table called ``name``; without one, that of ``where`` which has the columns; None if there is none.

        Raises DataError if several tables qualify and differ.
        """
        named = [table for table in self.tables if table.stem == name.lower()]
        return self.only(named or [table for table in where if set(columns) <= set(table.header)], f"{name}.csv")

    def only(self, tables: Sequence[TableFile], what: str) -> TableFile | None:
        """The first of the tables that could be ``what``; None without any. Raises DataError if they differ."""
        if len({table.path.read_bytes() for table in tables}) > 1:
            listing = ", ".join(self.name(table.path) for table in tables)
            raise DataError(
                f"--raw {self.folder}: {len(tables)} different tables could be {what}: {listing}. "
                "Move all but one out of this folder."
            )
        return tables[0] if tables else None

    def files(self, pattern: re.Pattern[str], folders: Collection[str] | None = None) -> Files:
        """The files with a matching name, by the pattern's first group in upper case.

        With ``folders``, only files in or below a folder with one of these names.
        """
        folder_names = None if folders is None else {name.lower() for name in folders}
        files: dict[str, list[Path]] = {}
        for folder, above, names in self._folders:
            for match in map(pattern.fullmatch, names if folder_names is None or folder_names & above else ()):
                if match:
                    files.setdefault(match[1].upper(), []).append(folder / match[0])
        return {image_id: tuple(paths) for image_id, paths in files.items()}

    def images(self, folders: Sequence[str] = (), suffixes: Sequence[str] = SUFFIXES) -> Files:
        """The image files by their name without suffix, from all folders, or in or below the named ones.

        A folder is named by its path below this one, or by the end of it. Raises DataError for one that is not here.
        """
        files: dict[str, list[Path]] = {}
        unused = set(folders)
        for folder, _, names in self._folders:
            place = f"/{self.name(folder)}/"
            inside = {name for name in folders if f"/{name.strip('/')}/" in place or name in (".", str(self.folder))}
            unused -= inside
            for path in (folder / name for name in names) if inside or not folders else ():
                if path.suffix.lower() in suffixes:
                    files.setdefault(path.stem, []).append(path)
        if unused:
            raise DataError(
                f"--raw {self.folder}: has no folder {', '.join(sorted(unused))}. "
                f"Images there: {self.describe_images()}. Correct `images` or `masks` of the description, or --raw."
            )
        return {stem: tuple(paths) for stem, paths in files.items()}

    def describe_images(self) -> str:
        """The number of images per folder, the largest first, and the name of one."""
        images = [path for path in self._paths() if path.suffix.lower() in SUFFIXES]
        return count_by_folder(self.folder, images) + (f", such as {images[0].name}" if images else "")

    def describe_tables(self, columns: Collection[str]) -> str:
        """The tables that lie here, those that lack the fewest of ``columns`` first."""
        lacking = sorted((len(set(columns) - set(each.header)), self.name(each.path), each) for each in self.tables)
        texts = [
            f"{name} (lacks {', '.join(sorted(set(columns) - set(table.header)))})" if count else name
            for count, name, table in lacking[:_SHOWN]
        ]
        more = [f"{len(lacking) - _SHOWN} more"] if len(lacking) > _SHOWN else []
        return ", ".join(texts + more) or "none"


def files_below(folder: Path) -> Iterator[Path]:
    """All that lies below a folder and is no folder, in order, except what is hidden. Links are followed.

    Links that lead nowhere and pipes are among them: whoever reads one learns what it is. Raises OSError.
    """
    return (path / name for path, _, names in _walk(folder, frozenset(), set(), regular=False) for name in names)


def _walk(folder: Path, above: frozenset[str], real_paths: set[str], regular: bool = True) -> Iterator[_Folder]:
    """A folder and those below it, sorted, each once however many links lead to it.

    ``above``: see `_Folder`. ``regular``: without links that lead nowhere, pipes and devices.
    """
    real = os.path.realpath(folder)
    if real in real_paths:
        return
    real_paths.add(real)
    with os.scandir(folder) as entries:
        visible = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    folders = [each for each in visible if _holds(each.is_dir)]
    others = [each for each in visible if not _holds(each.is_dir)]
    yield _Folder(folder, above, [each.name for each in others if not regular or _holds(each.is_file)])
    for each in folders:
        yield from _walk(folder / each.name, above | {each.name.lower()}, real_paths, regular)


def _holds(test: Callable[[], bool]) -> bool:
    """Whether an entry is a folder, or a file. A link to itself, or one below a file, is neither.

    Raises OSError for other faults: a folder that cannot be opened must not count as absent.
    """
    try:
        return test()
    except OSError as error:
        if error.errno not in NOWHERE:
            raise
        return False

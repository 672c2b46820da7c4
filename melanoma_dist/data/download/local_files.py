"""What a raw folder holds of the official files, and the record of what was downloaded: RAW/<year>/download.json.

A file is accepted only if it holds as many images, masks or rows as the official one. A server may announce no length
of a file. Then only the count reveals a table that was cut between two rows.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from melanoma_dist.data.download.archive import CorruptArchive, FolderSize, folder_size
from melanoma_dist.data.download.catalogue import OfficialFile
from melanoma_dist.data.download.partial_file import PartialFile, write_json
from melanoma_dist.data.download.transfer import BASE_URL_HINT
from melanoma_dist.data.raw_folder import RawFolder
from melanoma_dist.data.rows import read_rows
from melanoma_dist.data.sources.isic_layout import IMAGE_FILE, IMAGE_ID, MASK_FILE
from melanoma_dist.errors import DataError, DownloadError
from melanoma_dist.storage.untrusted import read_json

RECORD = "download.json"
_PATTERNS = {"images": IMAGE_FILE, "masks": MASK_FILE}
_record_lock = threading.Lock()


@dataclass(frozen=True)
class LocalFile:
    """One official file and its state in the raw folder."""

    file: OfficialFile
    state: Literal["missing", "partial", "downloaded", "provided"]
    """``provided``: it is there, but was not downloaded by this program."""
    detail: str = ""
    bytes: int = 0
    """Of an unfinished download."""

    @property
    def is_needed(self) -> bool:
        """Whether it has to be fetched."""
        return self.state in ("missing", "partial")


@dataclass(frozen=True)
class DownloadRecord:
    """One entry of download.json."""

    url: str
    bytes: int
    sha256: str
    when: str
    licence: str
    unpacked: FolderSize | None
    """None for a table."""


def target_path(raw: Path, file: OfficialFile) -> Path:
    """Return the path of the table, or of the folder of the unpacked archive."""
    return raw / str(file.year) / (file.stem if file.is_archive else file.name)


def partial_file(raw: Path, file: OfficialFile) -> PartialFile:
    """Open the unfinished download of a file."""
    return PartialFile(raw / str(file.year) / file.name)


def inspect(raw: Path, file: OfficialFile) -> LocalFile:
    """Determine the state of one file. Sizes are compared, and downloaded tables are hashed again.

    Raises DataError if a downloaded file has changed, or something else is in its place.
    """
    place = target_path(raw, file)
    entry = read_records(raw, file.year).get(file.name)
    if entry is not None and place.exists():
        return _require_unchanged(file, place, entry)
    if detail := _describe_provided(place, file):
        return LocalFile(file, "provided", detail)
    if place.exists() and not (place.is_dir() and file.is_archive and not any(place.iterdir())):
        raise DataError(f"{place}: must hold {file.label}, but holds something else. Move it away and try again.")
    part = partial_file(raw, file)
    if part.size and part.version is not None and part.version.url == file.url:
        return LocalFile(file, "partial", f"{part.size / (part.version.total or file.bytes):.0%}", part.size)
    return LocalFile(file, "missing")


def _require_unchanged(file: OfficialFile, place: Path, entry: DownloadRecord) -> LocalFile:
    now = folder_size(place) if place.is_dir() else FolderSize(1, place.stat().st_size)
    then = entry.unpacked or FolderSize(1, entry.bytes)
    change = ""
    if now != then:
        change = f"{now.files} files of {now.bytes} bytes, {then.files} of {then.bytes} when it was downloaded"
    elif not file.is_archive and hashlib.sha256(place.read_bytes()).hexdigest() != entry.sha256:
        change = "its SHA-256 is not the recorded one"
    if change:
        raise DataError(
            f"{place}: has changed since it was downloaded ({change}). Delete it to download it again, or keep it and "
            f"delete its entry in {place.parent / RECORD}."
        )
    return LocalFile(file, "downloaded", f"{now.files} files" if file.is_archive else "")


def _describe_provided(place: Path, file: OfficialFile) -> str:
    """Describe what is there of a file without a record; "" for nothing. Counts what `data prepare` reads."""
    if file.part == "labels":
        return "1 table" if _find_table(place.parent, file.stem) else ""
    count = _count_files(place.parent / file.stem, file.part)
    short = f", {file.count} expected" if count != file.count else ""
    return f"{count} {file.part}{short}" if count else ""


def _count_files(folder: Path, part: str) -> int:
    """Count the images or masks (``part``) in an unpacked archive, as `data prepare` finds them."""
    return len(RawFolder(folder).files(_PATTERNS[part])) if folder.is_dir() else 0


def _find_table(folder: Path, name: str) -> Path | None:
    places = (folder / f"{name}.csv", folder / name / f"{name}.csv")
    return next((path for path in places if path.is_file()), None)


def require_complete(file: OfficialFile, folder: Path) -> None:
    """Raise DownloadError if an unpacked archive holds fewer files than the catalogue lists."""
    if file.part == "labels":
        require_rows(file, _find_table(folder, file.stem) or folder / f"{file.stem}.csv")
        return
    count = _count_files(folder, file.part)
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
        header, *rows = (row for _, row in read_rows(path).rows)
    except (FileNotFoundError, ValueError):  # ValueError: not UTF-8, or not even a header
        header, rows = [], []
    if "image" not in ",".join(header):
        raise CorruptArchive(f"{file.label}: is not a table of images.")
    count = sum(len(row) == len(header) and IMAGE_ID.fullmatch(row[0].strip()) is not None for row in rows)
    if count < file.count:
        raise CorruptArchive(f"{file.label}: has {count} complete rows, {file.count} are expected.")


def read_records(raw: Path, year: int) -> dict[str, DownloadRecord]:
    """Read the record of a year's downloads, by file name. Raises DataError if it cannot be read."""
    from pydantic import TypeAdapter

    path = raw / str(year) / RECORD
    if not path.exists():
        return {}
    try:
        return TypeAdapter(dict[str, DownloadRecord]).validate_python(read_json(path)["files"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            f"{path}: cannot be read as a record of downloads ({error!r}). Delete it: the files beside it are then "
            "used as they are."
        ) from error


def record_download(raw: Path, file: OfficialFile, size: int, digest: str, unpacked: FolderSize | None) -> None:
    """Add one finished file to its year's record."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entry = DownloadRecord(file.url, size, digest, now, file.licence.short, unpacked)
    with _record_lock:
        entries = read_records(raw, file.year) | {file.name: entry}
        files = {name: asdict(each) for name, each in sorted(entries.items())}
        write_json(raw / str(file.year) / RECORD, {"files": files})

"""What a raw folder holds of the official files, and the record of what was downloaded: RAW/<year>/download.json."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from melanoma_dist.data.download.archive import FolderSize, folder_size
from melanoma_dist.data.download.catalogue import OfficialFile
from melanoma_dist.data.download.completeness import count_files
from melanoma_dist.data.download.partial_file import PartialFile, write_json
from melanoma_dist.data.sources.isic_layout import find_table
from melanoma_dist.errors import DataError
from melanoma_dist.storage.untrusted import read_json

RECORD = "download.json"
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
    elif not file.is_archive and _sha256(place) != entry.sha256:
        change = "its SHA-256 is not the recorded one"
    if change:
        raise DataError(
            f"{place}: has changed since it was downloaded ({change}). Delete it to download it again, or keep it and "
            f"delete its entry in {place.parent / RECORD}."
        )
    return LocalFile(file, "downloaded", f"{now.files} files" if file.is_archive else "")


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _describe_provided(place: Path, file: OfficialFile) -> str:
    """Describe what is there of a file without a record; "" for nothing. Counts what `data prepare` reads."""
    if file.part == "labels":
        return "1 table" if find_table(place.parent, file.stem) else ""
    count = count_files(place.parent, file.stem, file.part)
    short = f", {file.count} expected" if count != file.count else ""
    return f"{count} {file.part}{short}" if count else ""


def read_records(raw: Path, year: int) -> dict[str, DownloadRecord]:
    """Read the record of a year's downloads, by file name. Raises DataError if it cannot be read."""
    path = raw / str(year) / RECORD
    if not path.exists():
        return {}
    try:
        entries = read_json(path)["files"]
        return {str(name): _parse_record(entry) for name, entry in entries.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{path}: cannot be read as a record of downloads ({error!r}). Delete it: the files beside it are then "
            "used as they are."
        ) from error


def _parse_record(entry: dict[str, Any]) -> DownloadRecord:
    unpacked = FolderSize(**entry["unpacked"]) if entry["unpacked"] else None
    url, sha256, when, licence = (str(entry[name]) for name in ("url", "sha256", "when", "licence"))
    return DownloadRecord(url, int(entry["bytes"]), sha256, when, licence, unpacked)


def record_download(raw: Path, file: OfficialFile, size: int, digest: str, unpacked: FolderSize | None) -> None:
    """Add one finished file to its year's record."""
    now = datetime.now(UTC).isoformat(timespec="seconds")
    entry = DownloadRecord(file.url, size, digest, now, file.licence.short, unpacked)
    with _record_lock:
        entries = read_records(raw, file.year) | {file.name: entry}
        files = {name: asdict(each) for name, each in sorted(entries.items())}
        write_json(raw / str(file.year) / RECORD, {"files": files})

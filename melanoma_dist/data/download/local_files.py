"""What a raw folder holds of the official files, and the record of what was downloaded: RAW/<year>/download.json."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from melanoma_dist.data.download.archive import Contents, contents
from melanoma_dist.data.download.catalogue import Item
from melanoma_dist.data.download.counting import count_files
from melanoma_dist.data.download.partial_file import PartialFile, write_json
from melanoma_dist.data.sources.isic_layout import find_table
from melanoma_dist.errors import DataError
from melanoma_dist.storage.untrusted import read_json

RECORD = "download.json"
_writing = threading.Lock()


@dataclass(frozen=True)
class LocalFile:
    """One official file and what is here of it."""

    item: Item
    state: Literal["absent", "partial", "there", "brought"]
    """``brought``: it is there and was not downloaded by this program."""
    detail: str = ""
    bytes: int = 0
    """Of an unfinished download."""

    @property
    def wanted(self) -> bool:
        """Whether it has to be fetched."""
        return self.state in ("absent", "partial")


def target(raw: Path, item: Item) -> Path:
    """The table, or the folder of the unpacked archive."""
    return raw / str(item.year) / (item.stem if item.is_archive else item.name)


def part_of(raw: Path, item: Item) -> PartialFile:
    """The unfinished download of a file."""
    return PartialFile(raw / str(item.year) / item.name)


def inspect(raw: Path, item: Item) -> LocalFile:
    """Say what is here of one file: sizes are compared, tables that were downloaded are hashed again.

    Raises DataError where a downloaded file has changed since, or something else is in its place.
    """
    place = target(raw, item)
    entry = read_record(raw, item.year).get(item.name)
    if entry is not None and place.exists():
        return _require_unchanged(item, place, entry)
    if brought := _brought(place, item):
        return LocalFile(item, "brought", brought)
    if place.exists() and not (place.is_dir() and item.is_archive and not any(place.iterdir())):
        raise DataError(f"{place}: is in the place of {item.label} and holds none of it. Move it away and try again.")
    part = part_of(raw, item)
    if part.size and part.version is not None and part.version.url == item.url:
        return LocalFile(item, "partial", f"{part.size / (part.version.total or item.bytes):.0%}", part.size)
    return LocalFile(item, "absent")


def _require_unchanged(item: Item, place: Path, entry: dict[str, Any]) -> LocalFile:
    now = contents(place) if place.is_dir() else Contents(1, place.stat().st_size)
    then = Contents(**entry["unpacked"]) if entry["unpacked"] else Contents(1, entry["bytes"])
    if now != then:
        change = f"{now.files} files of {now.bytes} bytes, {then.files} of {then.bytes} when it was downloaded"
        raise _changed(place, change)
    if not item.is_archive and sha256(place) != entry["sha256"]:
        raise _changed(place, "its SHA-256 is not the one recorded")
    return LocalFile(item, "there", f"{now.files} files" if item.is_archive else "")


def _changed(place: Path, change: str) -> DataError:
    return DataError(
        f"{place}: was changed since it was downloaded ({change}). Delete it to download it again, or keep it and "
        f"delete its entry in {place.parent / RECORD}."
    )


def _brought(place: Path, item: Item) -> str:
    """What of a file is here without a record, as text; empty if nothing. What `data prepare` reads counts."""
    if item.part == "labels":
        return "1 table" if find_table(place.parent, item.stem) else ""
    count = count_files(place.parent, item.stem, item.part)
    short = f", {item.count} expected" if count != item.count else ""
    return f"{count} {item.part}{short}" if count else ""


def read_record(raw: Path, year: int) -> dict[str, dict[str, Any]]:
    """The entries of a year's downloads by file name. Raises DataError for a record that cannot be read."""
    path = raw / str(year) / RECORD
    if not path.exists():
        return {}
    try:
        files = read_json(path)["files"]
        for entry in files.values():
            int(entry["bytes"]), str(entry["sha256"])
            Contents(**entry["unpacked"]) if entry["unpacked"] else None
        return dict(files)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise DataError(
            f"{path}: is no record of downloads ({error!r}). Delete it: what lies beside it is then taken as it is."
        ) from error


def record(raw: Path, item: Item, size: int, digest: str, unpacked: Contents | None) -> None:
    """Add one finished file to its year's record."""
    entry = {
        "url": item.url,
        "bytes": size,
        "sha256": digest,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "licence": item.licence.short,
        "unpacked": asdict(unpacked) if unpacked else None,
    }
    with _writing:
        files = read_record(raw, item.year) | {item.name: entry}
        write_json(raw / str(item.year) / RECORD, {"files": dict(sorted(files.items()))})


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

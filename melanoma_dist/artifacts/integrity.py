"""Hashes of the files beside a record, so that a reader notices a file that was changed or replaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from melanoma_dist.errors import DataError
from melanoma_dist.storage.atomic import sha256


def hashes_of(*files: Path) -> dict[str, str]:
    """The sha256 of files, by name. Raises OSError for a file that cannot be read."""
    return {path.name: sha256(path.resolve()) for path in files}


def check_untouched(record: Path, hashes: Mapping[str, str], files: Sequence[Path], remedy: str) -> None:
    """Raise DataError, with the remedy, unless ``files`` have the ``hashes`` that ``record`` keeps by name."""
    try:
        current = hashes_of(*files)
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be read ({error.strerror}). {remedy}") from error
    changed = [name for name, digest in current.items() if hashes.get(name) != digest]
    if changed:
        verb = "is" if len(changed) == 1 else "are"
        raise DataError(
            f"{record.parent}: {' and '.join(changed)} {verb} not what {record.name} was written with: corrupt, "
            f"edited, or left by an earlier version of this program. {remedy}"
        )

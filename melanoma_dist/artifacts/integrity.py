"""Hashes of the files beside a record, so that a reader notices a file that was changed or replaced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from melanoma_dist.errors import DataError
from melanoma_dist.storage.atomic import sha256, write_text
from melanoma_dist.storage.untrusted import read_text

_WEIGHTS_HASH = "weights.sha256"


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


def write_hash(record: Path, file: Path, digest: str) -> None:
    """Write the sha256 of a file, named relative to the record's folder, as ``sha256sum --check`` reads it."""
    write_text(record, f"{digest}  {file}\n")


def read_hash(record: Path) -> str:
    """The sha256 in a record. Raises OSError or ValueError for a record that cannot be read; empty for an empty one."""
    digest, *_ = read_text(record).split(maxsplit=1) or [""]
    return digest


def write_weights_hash(fold: Path, weights: Path, digest: str) -> None:
    """Write the sha256 of a fold's weights into its folder."""
    write_hash(fold / _WEIGHTS_HASH, Path("..", weights.parent.name, weights.name), digest)


def weights_sha256(fold: Path, weights: Path) -> str:
    """The sha256 of a fold's weights. Raises DataError unless they are the file that the training wrote."""
    record = fold / _WEIGHTS_HASH
    try:
        digest = sha256(weights.resolve())
    except OSError as error:
        raise DataError(f"{weights}: the fold's model cannot be read ({error.strerror}). Copy it again.") from error
    try:
        expected = read_hash(record)
    except (OSError, ValueError) as error:
        raise DataError(f"{record}: cannot be read ({error}). Copy it again.") from error
    if expected != digest:
        raise DataError(
            f"{weights}: differs from the file that the training wrote ({record} has another hash). Copy it again, or "
            f"delete {fold} and summary.json and run the run's own training command to train the fold again."
        )
    return digest

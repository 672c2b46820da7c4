"""Read and write the JSON records of a run: one frozen dataclass per file.

A file may have been edited, corrupt or written by another version. Reading checks every field, so that the rest of the
program works on types alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.storage import atomic
from melanoma_dist.storage.untrusted import parse_json, read_bytes

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
_ADAPTERS: dict[object, TypeAdapter[Any]] = {}  # which take a tenth of a second to build
_OTHER_VERSION = "Open the run with that version, which its record.json names, or train it again under another --name."
_LONGEST = 60  # characters of a value that a message shows


def write_record(path: Path, record: DataclassInstance) -> None:
    """Write a record as JSON, whole or not at all. Raises ValueError for NaN, which JSON does not have."""
    write_json(path, asdict(record))


def write_json(path: Path, tree: dict[str, Any]) -> None:
    """Write a JSON file, whole or not at all. Raises ValueError for NaN."""
    atomic.write_text(path, json.dumps(tree, indent=1, allow_nan=False) + "\n")


def read_record(
    path: Path, kind: type[T], remedy: str, schemas: Sequence[int] = (), upgrade: Callable[[Any], Any] | None = None
) -> T:
    """Read a record of that kind. Raises DataError, with the field and the remedy, for a file that is not one.

    ``schemas`` are the numbers that the file may state. ``upgrade`` renames the fields of earlier versions.
    """
    try:
        content = read_bytes(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}). {remedy}") from error
    return parse_record(path, content, kind, remedy, schemas, upgrade)


def parse_record(
    path: Path,
    content: bytes,
    kind: type[T],
    remedy: str,
    schemas: Sequence[int] = (),
    upgrade: Callable[[Any], Any] | None = None,
) -> T:
    """Like ``read_record``, for the content of a file that lies elsewhere; messages name ``path``."""
    try:
        tree = parse_json(content)  # within limits, which pydantic does not have
    except ValueError as error:
        raise DataError(f"{path}: cannot be read ({error}). {remedy}") from error
    if not isinstance(tree, dict):
        raise DataError(f"{path}: must hold an object with fields, and holds {_short(tree)}. {remedy}")
    if upgrade is not None:
        tree = upgrade(tree)
    if schemas and tree.get("schema") not in schemas:
        numbers = f"has schema {_short(tree.get('schema'))}, must be {' or '.join(map(str, schemas))}"
        raise DataError(f"{path}: {numbers}: another version of this program wrote it. {_OTHER_VERSION}")
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    try:
        # As JSON again: only there do strict types allow lists for tuples and text for the integer keys of folds.
        record: T = _ADAPTERS[kind].validate_json(json.dumps(tree), strict=True)
    except ValidationError as error:
        raise DataError(f"{path}: {_first(error)}. {remedy}") from error
    except ConfigError as error:  # the rule of a dataclass in it
        raise DataError(f"{path}: {error} {remedy}") from error
    return record


def require_keys(path: Path, remedy: str, expected: Iterable[object], **mappings: Mapping[Any, object]) -> None:
    """Raise DataError unless each of the mappings, which are named by their fields, has exactly these keys."""
    required = set(expected)
    for field, mapping in mappings.items():
        if set(mapping) != required:
            keys = (", ".join(sorted(map(str, each))) or "nothing" for each in (mapping, required))
            raise DataError(f"{path}: {field} is about {next(keys)}, must be about {next(keys)}. {remedy}")


def _first(error: ValidationError) -> str:
    """The first mistake: its field, value and rule."""
    mistake = error.errors(include_url=False)[0]
    field = ".".join(str(part) for part in mistake["loc"])
    if mistake["type"] == "missing":
        return f"has no {field}"
    rule = mistake["msg"].removeprefix("Input should be ")
    return f"{field} is {_short(mistake['input'])}, must be {rule}"


def _short(value: object) -> str:
    text = json.dumps(value, default=str)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"

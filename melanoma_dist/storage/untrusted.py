"""Read untrusted text and JSON with limits, so that a bad file fails in one way only.

Every function raises OSError or ValueError and nothing else, whatever the file holds: a bomb, a million nested
brackets, a number that no column can hold. (`melanoma_dist.storage.parquet` reads tables.)
"""

from __future__ import annotations

import errno
import json
import math
import stat
from pathlib import Path
from typing import Any

NOWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)
"""What the system says of a link that leads nowhere, to itself, or below a file."""

MEBIBYTE = 2**20
_MAX_BYTES = 64 * MEBIBYTE  # of a text file; a run's own are a hundredth of it
_MAX_DEPTH = 50  # levels; the deepest of our own files has nine
_MAX_DIGITS = 18  # more do not fit into 64 bits
_MAX_VALUES = 1_000_000  # of a JSON text; each takes a hundred bytes of memory and may take two of the file


def read_bytes(path: Path, most: int = _MAX_BYTES) -> bytes:
    """Read a regular file of at most ``most`` bytes. (A pipe or /dev/zero would never end.)"""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ValueError("it is not a regular file")
    if status.st_size > most:
        raise ValueError(f"it has more than {most // MEBIBYTE} MiB, the limit for such a file")
    return path.read_bytes()


def read_text(path: Path, most: int = _MAX_BYTES) -> str:
    """Read a text file in UTF-8."""
    return read_bytes(path, most).decode()


def read_json(path: Path) -> Any:
    """Read a JSON file; see `parse_json`."""
    return parse_json(read_bytes(path))


def parse_json(content: str | bytes) -> Any:
    """Parse JSON: at most 50 levels deep, finite numbers of at most 64 bits, strings that UTF-8 can encode."""
    text = content if isinstance(content, str) else content.decode()
    if sum(map(text.count, ",:[{")) > _MAX_VALUES:
        raise ValueError(f"it has more than {_MAX_VALUES:,} values")
    try:
        tree = json.loads(text, parse_int=_integer, parse_float=_number, parse_constant=_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    require_plain(tree)
    return tree


def require_plain(tree: Any) -> None:
    """Raise ValueError for nesting that would exhaust the stack later, and for unprintable strings and numbers."""
    waiting = [(tree, 1)]
    while waiting:
        value, level = waiting.pop()
        if isinstance(value, str):
            value.encode()  # lone surrogates
        elif isinstance(value, int) and abs(value) >= 10**_MAX_DIGITS:  # Python refuses to print 4,300 digits
            raise ValueError("it holds a number that is too large")
        elif isinstance(value, dict | list) and level > _MAX_DEPTH:
            raise ValueError("it is nested too deeply")
        elif isinstance(value, dict):
            waiting += [(each, level + 1) for pair in value.items() for each in pair]
        elif isinstance(value, list):
            waiting += [(each, level + 1) for each in value]


def _integer(digits: str) -> int:
    if len(digits) > _MAX_DIGITS + digits.startswith("-"):
        raise ValueError(f"the number {digits[:_MAX_DIGITS]}... is too large")
    return int(digits)


def _number(text: str) -> float:
    """Parse a float. JSON has neither NaN nor infinity, but Python reads both; ``1e999`` is an infinity too."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:_MAX_DIGITS]} is not a JSON number")
    return number

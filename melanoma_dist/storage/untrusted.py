"""Text and JSON that somebody else may have written, read with limits, so that a file can be wrong in no other way.

All functions raise OSError or ValueError, and nothing else, whatever is in the file: a bomb, a nest of a million
brackets, a number that no column holds. (Tables are read by `melanoma_dist.storage.parquet`.)
"""

from __future__ import annotations

import json
import math
import stat
from pathlib import Path
from typing import Any

MEBIBYTE = 2**20
_MOST = 64 * MEBIBYTE  # of a file of text; a run's own are a hundredth of it
_DEEPEST = 50  # levels; the deepest of our own files has nine
_DIGITS = 18  # more do not fit into 64 bits
_VALUES = 1_000_000  # of a JSON text; each takes a hundred bytes of memory, and may take two of the file


def read_bytes(path: Path, most: int = _MOST) -> bytes:
    """The content of a regular file of at most ``most`` bytes. A pipe would never end, and neither would /dev/zero."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise ValueError("it is no regular file")
    if found.st_size > most:
        raise ValueError(f"it has more than {most // MEBIBYTE} MiB, and no such file of ours has")
    return path.read_bytes()


def read_text(path: Path, most: int = _MOST) -> str:
    """The content of a file in UTF-8."""
    return read_bytes(path, most).decode()


def read_json(path: Path) -> Any:
    """What a JSON file holds; see `parse_json`."""
    return parse_json(read_bytes(path))


def parse_json(content: str | bytes) -> Any:
    """What a JSON text holds: nested at most 50 deep, finite numbers of at most 64 bits, text that can be written."""
    text = content if isinstance(content, str) else content.decode()
    if sum(map(text.count, ",:[{")) > _VALUES:
        raise ValueError(f"it has more than {_VALUES:,} values, and no such file of ours has")
    try:
        tree = json.loads(text, parse_int=_integer, parse_float=_number, parse_constant=_number)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    require_plain(tree)
    return tree


def require_plain(tree: Any) -> None:
    """Raise ValueError for nesting that would exhaust the stack later, and for text and numbers that cannot be told."""
    waiting = [(tree, 1)]
    while waiting:
        value, level = waiting.pop()
        if isinstance(value, str):
            value.encode()  # lone surrogates
        elif isinstance(value, int) and abs(value) >= 10**_DIGITS:  # Python refuses to write what has 4,300 digits
            raise ValueError("it holds too large a number")
        elif isinstance(value, dict | list) and level > _DEEPEST:
            raise ValueError("it is nested too deep")
        elif isinstance(value, dict):
            waiting += [(each, level + 1) for pair in value.items() for each in pair]
        elif isinstance(value, list):
            waiting += [(each, level + 1) for each in value]


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS + digits.startswith("-"):
        raise ValueError(f"{digits[:_DIGITS]}... is too large a number")
    return int(digits)


def _number(text: str) -> float:
    """A float. JSON has neither NaN nor infinity, and Python reads both; ``1e999`` is an infinity too."""
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:_DIGITS]} is no number that JSON has")
    return number

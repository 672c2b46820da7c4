"""What a fold's ``metrics.jsonl`` says of its epochs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from melanoma_dist.errors import DataError
from melanoma_dist.storage.untrusted import read_text

_NUMBER = (int, float)
_KINDS: dict[str, type | tuple[type, ...]] = {
    "epoch": int, "best_epoch": int, "seconds": _NUMBER, "device": str, "devices": int, "images_per_s": _NUMBER,
    "wait_share": _NUMBER, "skipped_steps": int, "accumulate": int,
}  # fmt: skip


def read_epochs(fold: Path) -> list[dict[str, Any]]:
    """The epochs that a fold's folder tells, at least one. Raises DataError for a file that is missing or damaged."""
    path = fold / "metrics.jsonl"
    try:
        epochs: list[dict[str, Any]] = [json.loads(line) for line in read_text(path).splitlines()]
        if wrong := [name for name, kind in _KINDS.items() for each in epochs if not isinstance(each[name], kind)]:
            raise ValueError(f"{wrong[0]} is of another kind")
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise _damaged(path, repr(error)) from error
    if not epochs:
        raise _damaged(path, "it is empty")
    return epochs


def _damaged(path: Path, why: str) -> DataError:
    return DataError(f"{path}: does not tell the epochs of its fold ({why}). Delete {path.parent} to train it anew.")

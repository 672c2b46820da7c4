"""The folder of a comparison, what is written into it, and what is printed of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from melanoma_dist import console
from melanoma_dist.artifacts.mask_comparison import SegmenterComparison
from melanoma_dist.artifacts.records import write_record
from melanoma_dist.errors import ConfigError
from melanoma_dist.evaluate.comparison.records import Comparison

_LONGEST = 150  # characters of a folder's name; file systems take 255 bytes


def default_folder(runs: Sequence[Path], holdout: str | None) -> Path:
    """The folder beside the runs, named after them: the same comparison uses the same folder."""
    folders = [run.resolve() for run in runs]
    name = "-".join(["compare", *(folder.name for folder in folders), *(["on", holdout] if holdout else [])])
    if len(name) > _LONGEST:
        name = f"compare-{len(folders)}-runs-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
    return Path(os.path.commonpath([folder.parent for folder in folders])) / name


def create_folder(out: Path) -> None:
    """Create the folder before minutes of work. Raises ConfigError if that fails, or it is the folder of a run."""
    if (out / "record.json").exists():
        raise ConfigError.of("out", out, "is the folder of a run or a sweep", "Name another folder.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not os.access(out, os.W_OK):
            raise PermissionError("Permission denied")
    except OSError as error:
        raise _unwritable(out, error) from error


def write_results(out: Path, comparison: Comparison | SegmenterComparison, write_page: Callable[[Path], None]) -> None:
    """Write ``comparison.json`` and ``comparison.html``. Raises ConfigError where they cannot be written."""
    try:
        write_record(out / "comparison.json", comparison)
        write_page(out / "comparison.html")
    except OSError as error:
        raise _unwritable(out, error) from error


def show_conclusions(comparison: Comparison | SegmenterComparison, out: Path) -> None:
    """Print what a comparison shows, what it does not, and where its files are."""
    for line in comparison.conclusions:
        console.info(line)
    console.info("What this does not say:")
    for line in comparison.limits:
        console.info(f"- {line}")
    console.places({"page": out / "comparison.html", "metrics": out / "comparison.json"})


def _unwritable(out: Path, error: OSError) -> ConfigError:
    """The error for a folder that a comparison cannot be written into."""
    return ConfigError.of("out", out, f"cannot be written ({error.strerror or error})", "Name a writable folder.")

"""The journal of a preparation: it records images whose bytes are on the disk, so that a killed preparation resumes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from melanoma_dist.data.manifest import JOURNAL
from melanoma_dist.errors import DataError
from melanoma_dist.storage.journal import Journal
from melanoma_dist.storage.locks import lock_folder


@contextmanager
def open_journal(folder: Path) -> Iterator[Journal]:
    """Open the journal of ``folder``. Raises DataError if another process is preparing there."""
    refusal = f"{folder}: another preparation is writing here. Wait for it, or choose another folder with --out."
    with lock_folder(folder, DataError(refusal)), (folder / JOURNAL).open("a+b") as file:
        yield Journal(file)

"""The mirror of a sweep: one copy of its own files and those of its runs, and one of each fold.

    <url>/<sweep>/sweep/                    everything of the sweep except the folds of its runs
    <url>/<sweep>/<configuration>/fold-<i>/

A fold may be further in the mirror than the journal, or behind it. The sweep takes epochs that the journal does not
know from the fold. A fold that is behind trains the same epochs again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from melanoma_dist.mirror.copy import Generation, Log
from melanoma_dist.mirror.run_mirror import MirrorPart, retry
from melanoma_dist.storage.remote import describe_error

_FOLD_FILE = re.compile(r"c\d+[^/]*/(fold-\d+/.*|model/fold-\d+\.safetensors)")
_JOURNAL = "journal.jsonl"
_LAST_WAIT_S, _INTERRUPTED_WAIT_S = 600.0, 20.0
_PARTS_AT_A_TIME = 8


@dataclass(frozen=True)
class SweepPart(MirrorPart):
    """The files of a sweep except the folds of its runs."""

    record: ClassVar[str] = "sweep.json"

    def includes(self, path: str) -> bool:
        """Whether a file, by its path below the sweep's folder, belongs to this part."""
        return not _FOLD_FILE.fullmatch(path)

    @property
    def completion_files(self) -> tuple[str, ...]:
        """None: the journal says what is finished, and is as good as every other file."""
        return ()

    def local_progress(self) -> tuple[int, str]:
        """The size of the journal, which only grows."""
        journal = self.root / _JOURNAL
        return journal.stat().st_size if journal.is_file() else 0, ""

    def mirror_progress(self, generation: Generation) -> tuple[int, str]:
        """The same of a generation of the copy."""
        return generation.files[_JOURNAL].size if _JOURNAL in generation.files else 0, ""


def runs_url(mirror: str | None, sweep: Path) -> str | None:
    """The URL below which the runs of a sweep are mirrored."""
    return None if mirror is None else f"{mirror.rstrip('/')}/{sweep.name}"


def sweep_part(mirror: str | None, sweep: Path) -> list[MirrorPart]:
    """The part of the sweep itself; empty without a mirror."""
    return [] if mirror is None else [SweepPart(f"{runs_url(mirror, sweep)}/sweep", sweep)]


@contextmanager
def keep_sweep_mirrored(
    parts: list[MirrorPart], folds: Callable[[], list[MirrorPart]], log: Log
) -> Iterator[Callable[[], None]]:
    """Copy the sweep's own files at the start of the block, at each call of the yielded function, and at the end.

    At the end, unless the block raises, copy ``folds`` too: meanwhile their checkpoints were removed.
    Raises ConfigError if the mirror cannot be written at the start; at the end, logs that it is not up to date.
    """
    if not parts:
        yield lambda: None
        return
    (part,) = parts
    retry(part.url, part.copy(log).update)
    uploader = part.uploader(log)
    wait_s = _INTERRUPTED_WAIT_S
    try:
        yield uploader.notify
        late = _update(folds())
        for line in late:
            log(line)
        wait_s = _LAST_WAIT_S
    finally:
        if uploader.close(wait_s) and wait_s == _LAST_WAIT_S and not late:
            log(f"mirror: {part.url.removesuffix('/sweep')} is up to date")


def _update(folds: list[MirrorPart]) -> list[str]:
    """Copy the folds that are on this disk. Returns a message for each that the storage refused."""

    def update(part: MirrorPart) -> str | None:
        try:
            part.copy(lambda _: None).update()
        except Exception as error:  # each storage's library has classes of its own
            return f"{part.url}: the mirror is not up to date ({describe_error(error)}). What it holds is complete."
        return None

    here = [part for part in folds if (part.root / f"fold-{part.fold}").is_dir()]
    with ThreadPoolExecutor(_PARTS_AT_A_TIME) as pool:
        return [message for message in pool.map(update, here) if message is not None]

"""The mirror of a run: one copy of the run itself, and one of each fold, which trains on its own.

    <url>/<run>/run/                everything of the run except its folds
    <url>/<run>/fold-<i>/           events, metrics, checkpoints, predictions and weights of a fold
    <url>/<run>/seed-<s>/fold-<i>/  the same for further seeds

Before a command resumes a run, it restores each part that is further in the mirror than on the disk.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, NamedTuple, TypeVar

from melanoma_dist.artifacts.run_folder import RunFolder, refuse_another, trainings
from melanoma_dist.artifacts.run_record import parse_run_record
from melanoma_dist.config.run import RunConfig
from melanoma_dist.errors import ConfigError, DataError, MelanomaDistError
from melanoma_dist.mirror.copy import CorruptCopy, FolderCopy, Generation, Log
from melanoma_dist.mirror.uploader import Uploader
from melanoma_dist.storage import atomic
from melanoma_dist.storage.backoff import Backoff
from melanoma_dist.storage.locks import LOCK, lock_file
from melanoma_dist.storage.remote import describe_error

T = TypeVar("T")
_FOLD_FILE = re.compile(r"(seed-\d+/)?(fold-\d+/.*|model/fold-\d+\.safetensors)")
_CHECKPOINT_FILE = re.compile(r"fold-\d+/checkpoints/(epoch-[^/]+)/.*")
_RECORD, _SUMMARY = "record.json", "summary.json"
_ATTEMPTS = 4
_BACKOFF = Backoff(first_s=1.0, longest_s=10.0)
_PERMANENT = (ImportError, ValueError, PermissionError)  # a missing library or a bad URL: a retry cannot help
_LAST_WAIT_S = 600.0  # at the end of a command


@dataclass(frozen=True)
class MirrorPart:
    """The files that are copied together: a fold, or the rest of the run."""

    url: str
    root: Path
    fold: int | None = None
    record: ClassVar[str] = _RECORD
    """The file with the identity of a part that is no fold."""

    def includes(self, path: str) -> bool:
        """Whether a file, by its path below the root, belongs to this part."""
        if self.fold is None:
            return not _FOLD_FILE.fullmatch(path)
        return path.startswith(f"fold-{self.fold}/") or path == f"model/fold-{self.fold}.safetensors"

    @property
    def completion_files(self) -> tuple[str, ...]:
        """The files that mark this part as finished, in the order in which they are written."""
        return (_RECORD, _SUMMARY) if self.fold is None else (f"fold-{self.fold}/predictions.parquet",)

    def copy(self, log: Log) -> FolderCopy:
        """Open the copy of this part."""
        return FolderCopy(self.url, self.root, self.includes, log)

    def uploader(self, log: Log) -> Uploader:
        """Start a thread that keeps the copy up to date."""
        return Uploader(self.url, self.copy, log)

    def local_progress(self) -> tuple[int, str]:
        """Return how many completion files are on this disk, and the newest intact checkpoint if it is needed."""
        finished = sum((self.root / path).is_file() for path in self.completion_files)
        if self.fold is None or finished:
            return finished, ""
        checkpoints = atomic.committed_folders(self.root / f"fold-{self.fold}/checkpoints", "epoch-*")
        intact = (name for name in reversed(checkpoints) if atomic.integrity_error(checkpoints[name]) is None)
        return finished, next(intact, "")

    def mirror_progress(self, generation: Generation) -> tuple[int, str]:
        """Return the same of a generation of the copy."""
        finished = sum(path in generation.files for path in self.completion_files)
        if finished == len(self.completion_files):  # nothing resumes: the end of the run removes the checkpoints
            return finished, ""
        checkpoints = [match[1] for match in map(_CHECKPOINT_FILE.fullmatch, generation.files) if match]
        return finished, max(checkpoints, default="")


class _PartCopy(NamedTuple):
    part: MirrorPart
    copy: FolderCopy
    generation: Generation


def fold_url(config: RunConfig, run: RunFolder, place: Path, fold: int) -> str | None:
    """Return where a fold is mirrored; None without a mirror. ``place``: the folder of the run or of one seed."""
    if config.mirror is None:
        return None
    seed = "" if place == run.path else f"/{place.name}"
    return f"{config.mirror.rstrip('/')}/{run.path.name}{seed}/fold-{fold}"


def mirror_parts(config: RunConfig, run: RunFolder) -> list[MirrorPart]:
    """List the parts of a run, the run's own first; empty without a mirror."""
    if config.mirror is None:
        return []
    places = [(place, fold) for _, place in trainings(config, run) for fold in range(config.data.folds)]
    folds = [MirrorPart(f"{fold_url(config, run, place, fold)}", place, fold) for place, fold in places]
    return [MirrorPart(f"{config.mirror.rstrip('/')}/{run.path.name}/run", run.path), *folds]


def restore(run: RunFolder, parts: list[MirrorPart], busy: ConfigError, log: Log) -> None:
    """Restore the parts that are further in the mirror than on this disk.

    Raises ConfigError if the mirror cannot be read or holds another run, and ``busy`` if a command uses the folder.
    """
    if not parts:
        return
    url = parts[0].url
    copies = retry(url, lambda: _open_copies(parts, log))
    for part, copy, generation in copies:
        if part.fold is None and part.record in generation.files:
            try:
                content = copy.read_file(generation, part.record)
                identity = parse_run_record(Path(part.url) / part.record, content).identity
            except (CorruptCopy, DataError):
                continue  # the record will be written again
            refuse_another(Path(part.url), identity, run.identity)
    ahead = [each for each in copies if each.part.mirror_progress(each.generation) > each.part.local_progress()]
    if ahead:
        run.path.mkdir(parents=True, exist_ok=True)
        with lock_file(run.path / LOCK, busy):
            retry(url, lambda: _restore_parts(ahead, log))


@contextmanager
def keep_mirrored(parts: list[MirrorPart], log: Log) -> Iterator[None]:
    """Copy the run's own files at the start of the block, and all parts at its end unless it raises.

    Raises ConfigError if the mirror cannot be written at the start; at the end, logs that it is not up to date.
    """
    if not parts:
        yield
        return
    retry(parts[0].url, parts[0].copy(log).update)
    yield
    uploaders = [part.uploader(log) for part in parts]
    until = time.monotonic() + _LAST_WAIT_S
    late = [uploader for uploader in uploaders if not uploader.close(max(1.0, until - time.monotonic()))]
    if not late:
        log(f"mirror: {parts[0].url.removesuffix('/run')} is up to date")


def _open_copies(parts: list[MirrorPart], log: Log) -> list[_PartCopy]:
    copies = ((part, part.copy(log)) for part in parts)
    return [_PartCopy(part, copy, newest) for part, copy in copies if (newest := copy.newest()) is not None]


def _restore_parts(ahead: list[_PartCopy], log: Log) -> None:
    """Restore the run's own part last: its summary marks the run as finished."""
    corrupt: list[str] = []
    for part, copy, generation in reversed(ahead):
        log(f"restoring {part.url} into {part.root}")
        if corrupt and part.fold is None:  # leave the run unfinished, so that it is evaluated again
            generation = replace(generation, files={k: v for k, v in generation.files.items() if k != _SUMMARY})
        corrupt += copy.restore(generation, part.completion_files)
    for path in corrupt:
        log(f"the mirror's {path} is corrupt and was left out; the run resumes from the intact files")


def retry(url: str, action: Callable[[], T]) -> T:
    """Use the mirror, with a few retries. Raises ConfigError."""
    failures = 0
    while True:
        try:
            return action()
        except MelanomaDistError:
            raise
        except Exception as error:  # each storage's library has classes of its own
            failures += 1
            if failures == _ATTEMPTS or isinstance(error, _PERMANENT):
                rule = f"the mirror cannot be used ({describe_error(error)})"
                remedy = "Check the URL, the network and this machine's permission to write there, or omit --mirror."
                raise ConfigError.of("mirror", url, rule, remedy) from error
            time.sleep(_BACKOFF.wait_s(failures))

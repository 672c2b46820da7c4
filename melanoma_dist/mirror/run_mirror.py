"""The mirror of a run: one copy for the run itself, and one for each of its folds, which train on their own.

    <url>/<run>/run/                everything of the run but its folds
    <url>/<run>/fold-<i>/           events, metrics, checkpoints, predictions and weights of a fold
    <url>/<run>/seed-<s>/fold-<i>/  the same of further seeds

A part of the mirror that is ahead of the disk, or alone left, is brought back before a command goes on.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeVar

from melanoma_dist.artifacts.run_folder import RunFolder, refuse_another, trainings
from melanoma_dist.config.run import RunConfig
from melanoma_dist.errors import ConfigError, MelanomaDistError
from melanoma_dist.mirror.copy import Copy, Damaged, Generation, Tell
from melanoma_dist.mirror.uploader import Uploader
from melanoma_dist.storage import atomic
from melanoma_dist.storage.backoff import Backoff
from melanoma_dist.storage.locks import LOCK, alone_by
from melanoma_dist.storage.remote import told
from melanoma_dist.storage.untrusted import parse_json

T = TypeVar("T")
_OF_FOLD = re.compile(r"(seed-\d+/)?(fold-\d+/.*|model/fold-\d+\.safetensors)")
_STATE = re.compile(r"fold-\d+/checkpoints/(epoch-[^/]+)/.*")
_RECORD, _SUMMARY = "record.json", "summary.json"
_ATTEMPTS = 4
_BACKOFF = Backoff(first_s=1.0, longest_s=10.0)
_HOPELESS = (ImportError, ValueError, PermissionError)  # of a library or a URL: they come again
_LAST_WAIT_S = 600.0  # at the end of a command


@dataclass(frozen=True)
class Part:
    """What is copied together: a fold, or the rest of the run."""

    url: str
    root: Path
    fold: int | None = None

    def belongs(self, path: str) -> bool:
        """Whether a file, by its path below the root, is of this part."""
        if self.fold is None:
            return not _OF_FOLD.fullmatch(path)
        return path.startswith(f"fold-{self.fold}/") or path == f"model/fold-{self.fold}.safetensors"

    @property
    def last(self) -> tuple[str, ...]:
        """The files that say that something is finished, in the order in which they are written."""
        return (_RECORD, _SUMMARY) if self.fold is None else (f"fold-{self.fold}/predictions.parquet",)

    def copy(self, tell: Tell) -> Copy:
        """The copy of it."""
        return Copy(self.url, self.root, self.belongs, tell)

    def courier(self, tell: Tell) -> Uploader:
        """The copy of it, kept up to date."""
        return Uploader(f"{self.url}", self.copy, tell)

    def here(self) -> tuple[int, str]:
        """How far it is on this disk: how many of ``last`` are there, and the newest good checkpoint."""
        found = sum((self.root / path).is_file() for path in self.last)
        states = {} if self.fold is None else atomic.standing(self.root / f"fold-{self.fold}/checkpoints", "epoch-*")
        return found, next((name for name in reversed(states) if atomic.damage(states[name]) is None), "")

    def there(self, generation: Generation) -> tuple[int, str]:
        """The same of a generation of the copy."""
        found = sum(path in generation.files for path in self.last)
        states = [match[1] for match in map(_STATE.fullmatch, generation.files) if match]
        return found, max(states, default="")


class _Found(NamedTuple):
    part: Part
    copy: Copy
    generation: Generation

    def is_ahead(self) -> bool:
        return self.part.there(self.generation) > self.part.here()


def fold_url(config: RunConfig, run: RunFolder, place: Path, fold: int) -> str | None:
    """Where the mirror, if there is one, has a fold of the training that lies at ``place``, the run or one seed."""
    if config.mirror is None:
        return None
    seed = "" if place == run.path else f"/{place.name}"
    return f"{config.mirror.rstrip('/')}/{run.path.name}{seed}/fold-{fold}"


def parts(config: RunConfig, run: RunFolder) -> list[Part]:
    """All parts of a run; the run's own is the first. None where the run is not mirrored."""
    if config.mirror is None:
        return []
    places = [(place, fold) for _, place in trainings(config, run) for fold in range(config.data.folds)]
    folds = [Part(f"{fold_url(config, run, place, fold)}", place, fold) for place, fold in places]
    return [Part(f"{config.mirror.rstrip('/')}/{run.path.name}/run", run.path), *folds]


def restore(run: RunFolder, of_run: list[Part], busy: ConfigError, tell: Tell) -> None:
    """Bring to this disk what the mirror is ahead in; nothing without parts.

    Raises ConfigError when the mirror cannot be read or holds another run, and ``busy`` when a command works there.
    """
    if not of_run:
        return
    found = _asked(of_run[0].url, lambda: _find(of_run, tell))
    _refuse_another(run, found)
    ahead = [each for each in found if each.is_ahead()]
    if ahead:
        run.path.mkdir(parents=True, exist_ok=True)
        with alone_by(run.path / LOCK, busy):
            _asked(of_run[0].url, lambda: _bring(ahead, tell))


@contextmanager
def mirrored(of_run: list[Part], tell: Tell) -> Iterator[None]:
    """Copy the run's own files now, and all parts in the end, if that is a good one; nothing without parts.

    Raises ConfigError when the mirror cannot be written now; later, it tells.
    """
    if not of_run:
        yield
        return
    _asked(of_run[0].url, of_run[0].copy(tell).update)
    yield
    couriers = [part.courier(tell) for part in of_run]
    until = time.monotonic() + _LAST_WAIT_S
    late = [courier for courier in couriers if not courier.close(max(1.0, until - time.monotonic()))]
    if not late:
        tell(f"mirror: {of_run[0].url.removesuffix('/run')} has all of this run")


def _find(of_run: list[Part], tell: Tell) -> list[_Found]:
    copies = [(part, part.copy(tell)) for part in of_run]
    newest = [(part, copy, copy.newest()) for part, copy in copies]
    return [_Found(part, copy, generation) for part, copy, generation in newest if generation is not None]


def _bring(ahead: list[_Found], tell: Tell) -> None:
    """The run's own comes last: where its summary is, the run is finished."""
    damaged: list[str] = []
    for part, copy, generation in reversed(ahead):
        tell(f"restoring what {part.url} has into {part.root}")
        if damaged and part.fold is None:  # it is concluded anew, then
            generation = replace(generation, files={k: v for k, v in generation.files.items() if k != _SUMMARY})
        damaged += copy.restore(generation, part.last)
    for path in damaged:
        tell(f"the mirror's {path} is damaged and was left out; the run goes on from what is whole")


def _refuse_another(run: RunFolder, found: list[_Found]) -> None:
    for part, copy, generation in found:
        if part.fold is None and _RECORD in generation.files:
            try:
                identity = dict(parse_json(copy.content(generation, _RECORD))["identity"])
            except (Damaged, ValueError, KeyError, TypeError):
                continue  # the record is made anew
            refuse_another(Path(part.url), identity, run.identity)


def _asked(url: str, action: Callable[[], T]) -> T:
    """Do something with the mirror, a few times if need be. Raises ConfigError."""
    failures = 0
    while True:
        try:
            return action()
        except MelanomaDistError:
            raise
        except Exception as error:  # each storage's library has classes of its own
            failures += 1
            if failures == _ATTEMPTS or isinstance(error, _HOPELESS):
                remedy = "Check the URL, the network and this machine's leave to write there, or leave --mirror out."
                raise ConfigError.of("mirror", url, f"the mirror cannot be used ({told(error)})", remedy) from error
            time.sleep(_BACKOFF.wait_s(failures))

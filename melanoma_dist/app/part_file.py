"""Keeps predicted images beside the output of `predict` until the command ends, so that an interrupted one resumes.

``predictions.csv.part`` is a journal: the conditions of the command, then a line per image. The last bits of a
probability depend on the other images of its batch. So a command resumes under equal conditions alone, and after whole
chunks: all further batches are then those of a command that was never interrupted.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pydantic import TypeAdapter, ValidationError

from melanoma_dist import console, signals
from melanoma_dist.app.scoring import KnownImage, ScoredImage, Scores
from melanoma_dist.data.photo import Photo
from melanoma_dist.errors import ConfigError
from melanoma_dist.inference.lesion_masks import Lesion
from melanoma_dist.storage.images import MAX_BYTES
from melanoma_dist.storage.journal import Journal
from melanoma_dist.storage.locks import lock_file
from melanoma_dist.storage.untrusted import read_bytes

SUFFIX = ".part"
Conditions = Mapping[str, object]


@dataclass(frozen=True)
class _Record:
    """An image in the journal."""

    image: str
    sha256: str
    """Empty for a file that cannot be read."""
    width: int
    height: int
    blur: float | None
    error: str
    """Empty for an image that was predicted."""
    folds: list[list[float]]
    """As in `Scores`, like the next three; empty for an image with an error."""
    probability: list[float]
    positive: list[bool]
    novelty: float | None
    trained_as: KnownImage | None
    held_out_as: KnownImage | None
    ends_chunk: bool
    lesion: Lesion | None = None


_RECORD = TypeAdapter(_Record)


class PartFile:
    """The part file of one command."""

    def __init__(self, path: Path, journal: Journal) -> None:
        self.path = path
        self._journal = journal
        self._open = False

    @property
    def empty(self) -> bool:
        """Whether it is known to hold no image."""
        return self._open and self._journal.finished == 0

    def restore(self, conditions: Conditions, files: Sequence[Path], size: int) -> list[ScoredImage]:
        """The first images of ``files`` that an earlier command predicted under the same conditions; says how many.

        ``size``: readable images of a chunk.
        """
        before = self._journal.request()
        same = self._journal.resume(dict(conditions))
        self._open = True
        if not same:
            if isinstance(before, dict):
                changed = [name for name in {**before, **conditions} if before.get(name) != conditions.get(name)]
                console.info(f"{self.path}: holds another command's images (other {', '.join(changed)}). Starts anew.")
            return []
        records = list(_unchanged(map(_parse, self._journal.records()), files))
        records = records[: _end(records, len(files), size)]
        self._journal.cut(len(records))
        if records:
            signals.mark_started()
            console.info(f"resumes after {len(records)} of {len(files)} images, which {self.path} holds.")
        return [_scored(record, path) for record, path in zip(records, files, strict=False)]

    def add(self, chunk: Sequence[ScoredImage]) -> None:
        """Keep the images of a chunk."""
        self._journal.add([asdict(_record(image, image is chunk[-1])) for image in chunk])
        signals.mark_started()


@contextmanager
def open_part(out: Path) -> Iterator[PartFile]:
    """Open the part file of an output, and remove it at the end unless an error ends the command after a chunk.

    Raises ConfigError for one that another command writes or that cannot be written, and for a file of that name that
    is something else.
    """
    path = out.with_name(out.name + SUFFIX)
    out.parent.mkdir(parents=True, exist_ok=True)
    busy = ConfigError.of("out", out, f"another command is writing {path}", "Wait for it, or name another file.")
    remedy = "Move that file, or name another --out."
    try:
        file = path.open("a+b")
    except OSError as error:
        rule = f"its unfinished part {path} cannot be written ({error.strerror})"
        raise ConfigError.of("out", out, rule, remedy) from error
    with file, lock_file(path, busy):
        journal = Journal(file)
        if path.stat().st_size and journal.request() is None:
            rule = f"its unfinished part would replace {path}, which `predict` did not write"
            raise ConfigError.of("out", out, rule, remedy)
        part = PartFile(path, journal)
        try:
            yield part
        except BaseException:
            if part.empty:
                path.unlink()
            raise
        path.unlink()


def _record(image: ScoredImage, ends_chunk: bool) -> _Record:
    photo, scores = image.photo, image.scores
    return _Record(
        image=console.printable(photo.image_id),
        sha256=photo.source_sha256,
        width=photo.source_width,
        height=photo.source_height,
        blur=_number(image.blur),
        error=console.printable(image.error),
        folds=[] if scores is None else scores.folds.tolist(),
        probability=[] if scores is None else scores.probability.tolist(),
        positive=[] if scores is None else scores.positive.tolist(),
        novelty=None if scores is None else _number(scores.novelty),
        trained_as=image.trained_as,
        held_out_as=image.held_out_as,
        ends_chunk=ends_chunk,
        lesion=None if scores is None else scores.lesion,
    )


def _scored(record: _Record, path: Path) -> ScoredImage:
    """The image as it was scored: JSON holds every bit of a number."""
    scores = None
    if not record.error:
        folds, probability = (np.array(each, dtype=np.float32) for each in (record.folds, record.probability))
        novelty = math.nan if record.novelty is None else record.novelty
        scores = Scores(folds, probability, np.array(record.positive), novelty, lesion=record.lesion)
    failures = ((path, record.error),) if record.error else ()
    source = None if record.error else path
    photo = Photo(str(path), failures, source, record.sha256, record.width, record.height)
    blur = math.nan if record.blur is None else record.blur
    return ScoredImage(photo, blur, scores, record.trained_as, record.held_out_as)


def _parse(tree: object) -> _Record | None:
    try:
        # As JSON again: only there do strict types allow an object for a dataclass.
        return _RECORD.validate_json(json.dumps(tree), strict=True)
    except ValidationError:
        return None


def _unchanged(records: Iterable[_Record | None], files: Sequence[Path]) -> Iterator[_Record]:
    """The records of the first files, up to one that changed since."""
    pairs = zip(console.progress(files, len(files), "comparing files"), records, strict=False)
    for path, record in pairs:
        if record is None or record.image != console.printable(str(path)) or record.sha256 != _sha256(path):
            return
        yield record


def _sha256(path: Path) -> str:
    try:
        return hashlib.sha256(read_bytes(path, MAX_BYTES)).hexdigest()
    except (OSError, ValueError):
        return ""


def _end(records: Sequence[_Record], count: int, size: int) -> int:
    """How many records are whole chunks of a command on ``count`` files."""
    readable = end = 0
    for number, record in enumerate(records, start=1):
        readable += not record.error
        if record.ends_chunk and (readable % size == 0 or number == count):
            end = number
    return end


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)

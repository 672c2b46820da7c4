"""The history of evaluations on the same images, from the records in a folder of runs.

Evaluations are compared image by image, so that one on some of the images, or on more than these, counts too.
Evaluations whose records were deleted count as far as other records name them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from melanoma_dist.artifacts.evaluation import EVALUATION, EarlierEvaluation, EvaluationRecord, read_evaluation
from melanoma_dist.config.run import Task
from melanoma_dist.data.manifest import write_table
from melanoma_dist.errors import DataError
from melanoma_dist.inference.images import Bools, Images
from melanoma_dist.storage.parquet import read_parquet

EVALUATIONS = "evaluations"
IMAGES = "images.parquet"
PREDICTIONS = "predictions.parquet"
_IDENTIFY = ["image_id", "source_sha256"]
Key = tuple[str, int, str | None]
"""Run, number and start identify an evaluation."""


@dataclass(frozen=True)
class StoredEvaluation:
    """An evaluation whose record exists."""

    folder: Path
    record: EvaluationRecord

    @property
    def key(self) -> Key:
        """With the name of the run's folder."""
        return self.folder.parents[1].name, self.record.number, self.record.started


@dataclass(frozen=True)
class AccessHistory:
    """The evaluations before a new one."""

    number: int
    """Of the new evaluation among those of its run; numbers of deleted ones are not used again."""
    earlier: tuple[EarlierEvaluation, ...]
    """By time, those of unknown time last."""
    seen_before: int
    """How many of the images appear in any existing record."""


def read_history(run: Path, images: Images, task: Task = "classification") -> AccessHistory:
    """Find every earlier evaluation on any of the images by a run in the same folder, finished or not.

    Evaluations of the other task do not count: a segmenter is compared with masks, a classifier with diagnoses.

    Deleted records are found by the records that name them, and by gaps in the numbers of ``run``. Their images are not
    known, so they count. Raises DataError for a record that cannot be read.
    """
    every = read_evaluations(run.parent.glob(f"*/{EVALUATIONS}/*/{EVALUATION}"))
    stored = [each for each in every if each.record.task == task]
    masks = [(each, seen_in(each, images)) for each in stored]
    same = [(each, evaluated) for each, evaluated in masks if evaluated.any()]
    earlier = [EarlierEvaluation(*each.key, images=int(evaluated.sum())) for each, evaluated in same]
    earlier += _deleted([each for each, _ in same], stored, run.parent)
    number = _next_number(run, stored)
    listed = {(each.run, each.number) for each in earlier}
    earlier += [_unknown(run.name, gap, None) for gap in _gaps(run, number) if (run.name, gap) not in listed]
    union = np.logical_or.reduce([np.zeros(len(images.rows), dtype=bool), *(evaluated for _, evaluated in same)])
    return AccessHistory(number, tuple(sorted(earlier, key=_by_time)), int(union.sum()))


def read_evaluations(files: Iterable[Path]) -> list[StoredEvaluation]:
    """Read the records in files. Raises DataError for one that cannot be read: it may log an evaluation."""
    return [StoredEvaluation(path.parent, read_evaluation(path.parent)) for path in sorted(files)]


def write_images(images: Images, folder: Path) -> None:
    """Write what identifies each image of an evaluation beside its record."""
    write_table(folder / IMAGES, images.table[_IDENTIFY])


def seen_in(evaluation: StoredEvaluation, images: Images) -> Bools:
    """Which of the images [n] an evaluation saw, by their ids or the hashes of their source files.

    Records of the first version do not list them: there all, where the whole set is the same, else those that it has
    predictions of.
    """
    table, record = images.table, evaluation.record
    if not (evaluation.folder / IMAGES).is_file() and record.images_sha256 == images.sha256():
        return np.ones(len(table), dtype=bool)
    evaluated = np.zeros(len(table), dtype=bool)
    for column, values in _identities(evaluation).items():
        known = {value for value in values if value}
        evaluated |= table[column].isin(known).to_numpy()
    return evaluated


def _identities(evaluation: StoredEvaluation) -> pd.DataFrame:
    folder = evaluation.folder
    for name, columns in ((IMAGES, _IDENTIFY), (PREDICTIONS, _IDENTIFY[:1])):
        if (folder / name).is_file():
            try:
                return read_parquet(folder / name, columns)
            except (OSError, ValueError) as error:
                raise _unreadable(folder / name, f"cannot be read ({error})") from error
    if evaluation.record.schema != 1:
        raise _unreadable(folder / IMAGES, "is missing")
    return pd.DataFrame()


def _unreadable(path: Path, why: str) -> DataError:
    return DataError(f"{path}: {why}, and may list images of an earlier evaluation. Bring it back.")


def _deleted(
    same: Sequence[StoredEvaluation], stored: Sequence[StoredEvaluation], runs: Path
) -> list[EarlierEvaluation]:
    """The evaluations that records of these images name and that have no record themselves."""
    keys = {each.key for each in stored}
    named: set[Key] = {(e.run, e.number, e.started) for each in same for e in each.record.earlier}
    dated = {(name, number) for name, number, started in keys | named if started is not None}
    # A run's folder that was renamed or copied keeps its records: the same number and start under another name.
    elsewhere = {(number, started) for _, number, started in keys}
    return [
        _unknown(name, number, started)
        for name, number, started in named - keys
        if (started is not None or (name, number) not in dated)
        and ((runs / name).exists() or (number, started) not in elsewhere)
    ]


def _next_number(run: Path, stored: Sequence[StoredEvaluation]) -> int:
    """After every number that a folder of the run has, or that a record says it had."""
    numbers = [_number(path) for path in (run / EVALUATIONS).iterdir()]
    numbers += [e.number for each in stored for e in each.record.earlier if e.run == run.name]
    return 1 + max(numbers, default=0)


def _gaps(run: Path, number: int) -> list[int]:
    """The numbers below ``number`` without a record. A folder without predictions never scored an image."""
    used = {
        _number(path)
        for path in (run / EVALUATIONS).iterdir()
        if (path / EVALUATION).exists() or (path.is_dir() and not (path / PREDICTIONS).exists())
    }
    return [each for each in range(1, number) if each not in used]


def _number(path: Path) -> int:
    match = re.match(r"(\d+)-", path.name)
    return int(match[1]) if match else 0


def _unknown(run: str, number: int, started: str | None) -> EarlierEvaluation:
    return EarlierEvaluation(run, number, started, images=None, deleted=True)


def _by_time(evaluation: EarlierEvaluation) -> tuple[bool, str, str, int]:
    return evaluation.started is None, evaluation.started or "", evaluation.run, evaluation.number

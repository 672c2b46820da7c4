"""Read the segmentation runs of a comparison, and refuse those that cannot be compared."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from melanoma_dist import console
from melanoma_dist.artifacts.evaluation import EVALUATION, EvaluationRecord, MaskResults, read_evaluation
from melanoma_dist.artifacts.integrity import check_untouched
from melanoma_dist.artifacts.mask_summary import MaskSummary, read_mask_summary
from melanoma_dist.artifacts.predictions import read_predictions
from melanoma_dist.artifacts.run_folder import RunFolder
from melanoma_dist.artifacts.summary import REFINALIZE
from melanoma_dist.errors import DataError
from melanoma_dist.evaluate.comparison.runs import names
from melanoma_dist.metrics.segmentation import METRICS

_SAME = "Segmenters are comparable where --seed, --folds and the data are the same."
_AGAIN = "Restore the file, or evaluate again (which is recorded as another evaluation of the images)."
_KEYS = ["image_id", "group", "fold"]


@dataclass(frozen=True)
class ScoredRun:
    """A finished segmentation run and the scores of its masks."""

    folder: Path
    name: str
    summary: MaskSummary
    table: pd.DataFrame
    """A row per image, sorted by id."""
    record: EvaluationRecord | None
    """Of the evaluation that scored the images; None out of fold."""


def read_scored_runs(folders: Sequence[Path], holdout: str | None) -> list[ScoredRun]:
    """Read runs with the scores of the same images. Raises DataError for runs that are unfinished or not comparable."""
    summaries = [_summary(folder) for folder in folders]
    called = names(folders, [summary.encoder for summary in summaries])
    runs = [_read(*each, holdout) for each in zip(folders, called, summaries, strict=True)]
    for other in runs[1:]:
        _require_comparable(runs[0], other)
    return runs


def _summary(folder: Path) -> MaskSummary:
    if not RunFolder(folder, {}).finished():
        raise DataError(f"compare: {folder}: the run is not finished. Re-run its command to resume it.")
    return read_mask_summary(folder)


def _read(folder: Path, name: str, summary: MaskSummary, holdout: str | None) -> ScoredRun:
    if holdout is None:
        run = RunFolder(folder, {})
        check_untouched(run.summary, summary.files, [run.predictions], REFINALIZE)
        return ScoredRun(folder, name, summary, _table(run.predictions, REFINALIZE), None)
    place, record, results = _last(folder, holdout)
    path = place / "predictions.parquet"
    check_untouched(place / EVALUATION, results.files, [path], _AGAIN)
    return ScoredRun(folder, name, summary, _table(path, _AGAIN), record)


def _table(path: Path, remedy: str) -> pd.DataFrame:
    table = read_predictions(path)
    missing = [name for name in (*_KEYS, *METRICS) if name not in table]
    if missing:
        raise DataError(f"{path}: the table has no column {', '.join(missing)}. {remedy}")
    return table.sort_values("image_id", ignore_index=True)


def _last(folder: Path, holdout: str) -> tuple[Path, EvaluationRecord, MaskResults]:
    finished = []
    for path in (folder / "evaluations").glob("*"):
        match = re.fullmatch(rf"(\d+)-{re.escape(holdout)}", path.name)
        if match and (path / EVALUATION).is_file():
            record = read_evaluation(path)
            if record.masks is not None:
                finished.append((int(match[1]), path, record, record.masks))
    if not finished:
        raise DataError(
            f"compare: {folder} has no finished evaluation on {holdout}. `{console.program()} evaluate {folder} "
            f"--holdout {holdout}` runs one, and records it."
        )
    _, path, record, results = max(finished, key=lambda each: each[0])
    return path, record, results


def _require_comparable(first: ScoredRun, other: ScoredRun) -> None:
    pair = f"compare: {first.folder} and {other.folder}"
    data = [run.summary.data.fingerprint for run in (first, other)]
    if first.record is None and data[0] != data[1]:
        raise DataError(f"{pair} were trained on different data ({data[0][:12]} and {data[1][:12]}). {_SAME}")
    if not first.table["image_id"].equals(other.table["image_id"]):
        raise DataError(f"{pair} segment different images. {_SAME}")
    if not first.table[_KEYS].astype(str).equals(other.table[_KEYS].astype(str)):
        raise DataError(f"{pair}: images lie in different folds or groups, which changes their scores too. {_SAME}")
    if first.record and other.record:
        if first.record.images_sha256 != other.record.images_sha256:
            raise DataError(f"{pair}: their last evaluations are on different images. Evaluate both on the same data.")
        if first.record.tta != other.record.tta:
            raise DataError(f"{pair}: their last evaluations differ in tta. Evaluate both with the same --tta.")

"""Read the runs of a comparison on a holdout: the predictions that ``evaluate`` stored of each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from melanoma_dist import console
from melanoma_dist.artifacts.evaluation import EVALUATION, EvaluationRecord, EvaluationResults, read_evaluation
from melanoma_dist.artifacts.integrity import check_untouched
from melanoma_dist.data.labels import TRUE
from melanoma_dist.errors import DataError
from melanoma_dist.evaluate.comparison.consistency import require_recorded_metrics
from melanoma_dist.evaluate.comparison.runs import (
    ComparedRun,
    names_of,
    read_summaries,
    read_table,
    require_same_labels,
    require_same_truth,
)

_AGAIN = "Restore the file, or evaluate again (which is recorded as another evaluation of the images)."


def read_holdout_runs(folders: Sequence[Path], holdout: str) -> list[ComparedRun]:
    """Read runs with their ensembles' predictions of a holdout, from the last finished evaluation of each.

    Raises DataError for a run without one, and for evaluations on different images or with different tta.
    """
    summaries = read_summaries(folders)
    require_same_labels(folders, summaries)
    evaluations = [_last(folder, holdout) for folder in folders]
    for folder, (_, record, _) in zip(folders[1:], evaluations[1:], strict=True):
        if record.images_sha256 != evaluations[0][1].images_sha256:
            raise DataError(
                f"compare: the last evaluations of {folders[0]} and {folder} on {holdout} are on different images. "
                "Evaluate both on the same prepared data."
            )
    _require_same_tta(folders, [record for _, record, _ in evaluations])
    runs = []
    for folder, name, summary, (path, record, results) in zip(
        folders, names_of(folders, summaries), summaries, evaluations, strict=True
    ):
        predictions = path / "predictions.parquet"
        table = read_table(predictions, record.labels, _AGAIN)
        # Labels without a known answer have no metrics in the record.
        measured = [label for label in record.labels if label not in record.labels_absent]
        require_recorded_metrics(predictions, table, measured, results.ensemble.by_image, EVALUATION, _AGAIN)
        check_untouched(path / EVALUATION, results.files, [predictions], _AGAIN)
        # Labels that the images do not have are unknown for all of them, so that they never count.
        for label in (label for label in summary.labels if label not in record.labels):
            table[label], table[label + TRUE] = np.float32(0), np.float32(np.nan)
        thresholds = [results.ensemble.thresholds.get(label, summary.threshold) for label in summary.labels]
        runs.append(ComparedRun(folder, name, summary, table, tuple(thresholds), record))
    require_same_truth(runs, _AGAIN)
    return runs


def _require_same_tta(folders: Sequence[Path], records: Sequence[EvaluationRecord]) -> None:
    """Raise DataError unless the evaluations average the same number of views of an image."""
    if len({record.tta for record in records}) > 1:
        listed = ", ".join(
            f"{folder} evaluation {record.number} with tta {record.tta}"
            for folder, record in zip(folders, records, strict=True)
        )
        raise DataError(
            "compare: the last evaluations differ in tta, so that a difference may come from the views and not from "
            f"the models: {listed}. Evaluate all with the same --tta; every evaluation of a holdout is recorded."
        )


def _last(folder: Path, holdout: str) -> tuple[Path, EvaluationRecord, EvaluationResults]:
    """The folder, the record and the results of the last finished evaluation."""
    finished = []
    for path in (folder / "evaluations").glob("*"):
        match = re.fullmatch(rf"(\d+)-{re.escape(holdout)}", path.name)
        if match and (path / EVALUATION).is_file():
            record = read_evaluation(path)
            if record.results is not None:
                finished.append((int(match[1]), path, record, record.results))
    if not finished:
        others = sorted({path.name.partition("-")[2] for path in (folder / "evaluations").glob("[0-9]*-*")})
        raise DataError(
            f"compare: {folder} has no finished evaluation on {holdout}"
            + (f" (it has: {', '.join(others)})" if others else "")
            + f". `{console.program()} evaluate {folder} --holdout {holdout}` runs one, and records it."
        )
    _, path, record, results = max(finished, key=lambda each: each[0])
    return path, record, results

"""Read the runs of a comparison on a holdout: the predictions that ``evaluate`` stored of each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from melanoma_dist.artifacts.integrity import check_untouched
from melanoma_dist.data.labels import TRUE
from melanoma_dist.errors import DataError
from melanoma_dist.evaluate.comparison.consistency import require_recorded_metrics
from melanoma_dist.evaluate.comparison.runs import (
    ComparedRun,
    names,
    read_summaries,
    read_table,
    require_same_labels,
    require_same_truth,
)
from melanoma_dist.evaluate.comparison.schema import EVALUATION, read_object, require_fields

_AGAIN = "Restore the file, or evaluate again (which is recorded as another evaluation of the images)."


def read_holdout_runs(folders: Sequence[Path], holdout: str) -> list[ComparedRun]:
    """Read runs with their ensembles' predictions of a holdout, from the last finished evaluation of each.

    Raises DataError for a run without one, and for evaluations on different images or with different tta.
    """
    summaries = read_summaries(folders)
    require_same_labels(folders, summaries)
    evaluations = [_last(folder, holdout) for folder in folders]
    for folder, (_, record) in zip(folders[1:], evaluations[1:], strict=True):
        if record["images_sha256"] != evaluations[0][1]["images_sha256"]:
            raise DataError(
                f"compare: the last evaluations of {folders[0]} and {folder} on {holdout} are on different images. "
                "Evaluate both on the same prepared data."
            )
    _require_same_tta(folders, [record for _, record in evaluations])
    runs = []
    for folder, name, summary, (path, record) in zip(
        folders, names(folders, summaries), summaries, evaluations, strict=True
    ):
        labels = tuple(summary["labels"])
        predictions = path / "predictions.parquet"
        stored = read_table(predictions, tuple(record["labels"]), _AGAIN)
        # Labels without a known answer have no metrics in the record.
        measured = [label for label in record["labels"] if label not in record.get("labels_absent", {})]
        require_recorded_metrics(
            predictions, stored, measured, record["ensemble"]["by_image"], "evaluation.json", _AGAIN
        )
        check_untouched(path / "evaluation.json", record.get("files") or {}, [predictions], _AGAIN)
        table = _with_all_labels(stored, labels)
        runs.append(ComparedRun(folder, name, summary, table, _thresholds(record, summary), record))
    require_same_truth(runs, _AGAIN)
    return runs


def _require_same_tta(folders: Sequence[Path], records: Sequence[dict[str, Any]]) -> None:
    """Raise DataError unless the evaluations average the same number of views of an image."""
    if len({record["tta"] for record in records}) > 1:
        listed = ", ".join(
            f"{folder} evaluation {record['number']} with tta {record['tta']}"
            for folder, record in zip(folders, records, strict=True)
        )
        raise DataError(
            "compare: the last evaluations differ in tta, so that a difference may come from the views and not from "
            f"the models: {listed}. Evaluate all with the same --tta; every evaluation of a holdout is recorded."
        )


def _last(folder: Path, holdout: str) -> tuple[Path, dict[str, Any]]:
    """The folder and the record of the last finished evaluation."""
    finished = []
    for path in (folder / "evaluations").glob("*"):
        match = re.fullmatch(rf"(\d+)-{re.escape(holdout)}", path.name)
        record = _record(path / "evaluation.json") if match else None
        if match and record is not None:
            finished.append((int(match[1]), path, record))
    if not finished:
        others = sorted({path.name.partition("-")[2] for path in (folder / "evaluations").glob("[0-9]*-*")})
        raise DataError(
            f"compare: {folder} has no finished evaluation on {holdout}"
            + (f" (it has: {', '.join(others)})" if others else "")
            + f". `launch.py evaluate {folder} --holdout {holdout}` runs one, and records it."
        )
    _, path, record = max(finished, key=lambda each: each[0])
    return path, record


def _record(path: Path) -> dict[str, Any] | None:
    """The record of an evaluation; None if it is not finished."""
    if not path.is_file():
        return None
    record = read_object(path, _AGAIN)
    if not record.get("finished"):
        return None
    require_fields(path, record, EVALUATION, _AGAIN)
    return record


def _thresholds(record: dict[str, Any], summary: dict[str, Any]) -> tuple[float, ...]:
    """The frozen operating point of each label."""
    frozen = (record["ensemble"].get("settings") or {}).get("thresholds") or {}
    return tuple(float(frozen.get(label, summary["threshold"])) for label in summary["labels"])


def _with_all_labels(table: pd.DataFrame, labels: tuple[str, ...]) -> pd.DataFrame:
    """Add the labels that the images do not have, as unknown for all of them, so that they never count."""
    table = table.copy()
    for label in labels:
        if label not in table:
            table[label], table[label + TRUE] = np.float32(0), np.float32(np.nan)
    return table

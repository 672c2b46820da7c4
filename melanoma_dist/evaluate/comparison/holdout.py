"""The runs of a comparison on images that no fold has seen: what `evaluate` has stored of each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from melanoma_dist.artifacts.run_folder import check_untouched
from melanoma_dist.data.labels import TRUE
from melanoma_dist.errors import DataError
from melanoma_dist.evaluate.comparison.consistency import require_told_figures
from melanoma_dist.evaluate.comparison.runs import (
    ComparedRun,
    names,
    read_summaries,
    read_table,
    require_same_labels,
    require_same_truth,
)
from melanoma_dist.evaluate.comparison.schema import EVALUATION, read_object, require_fields

_AGAIN = "Bring the file back, or evaluate again (another look at the images, which is recorded)."


def holdout_contenders(folders: Sequence[Path], holdout: str) -> list[ComparedRun]:
    """Runs with their ensembles' predictions of a holdout: of each the last evaluation of it that was finished.

    Raises DataError for a run that has none, and where two of them are not of the same images in as many views.
    """
    summaries = read_summaries(folders)
    require_same_labels(folders, summaries)
    evaluations = [_last(folder, holdout) for folder in folders]
    for folder, (_, record) in zip(folders[1:], evaluations[1:], strict=True):
        if record["images_sha256"] != evaluations[0][1]["images_sha256"]:
            raise DataError(
                f"compare: the last evaluations of {folders[0]} and {folder} on {holdout} are of other images. "
                "Evaluate both on the same prepared data."
            )
    _require_same_views(folders, [record for _, record in evaluations])
    contenders = []
    for folder, name, summary, (path, record) in zip(
        folders, names(folders, summaries), summaries, evaluations, strict=True
    ):
        labels = tuple(summary["labels"])
        predictions = path / "predictions.parquet"
        read = read_table(predictions, tuple(record["labels"]), _AGAIN)
        # Labels that the images cannot judge have no figures in the record.
        judged = [label for label in record["labels"] if label not in record.get("labels_absent", {})]
        require_told_figures(predictions, read, judged, record["ensemble"]["by_image"], "evaluation.json", _AGAIN)
        check_untouched(path / "evaluation.json", record.get("files"), [predictions], _AGAIN)
        table = _whole(read, labels)
        contenders.append(ComparedRun(folder, name, summary, table, _thresholds(record, summary), record))
    require_same_truth(contenders, _AGAIN)
    return contenders


def _require_same_views(folders: Sequence[Path], records: Sequence[dict[str, Any]]) -> None:
    """Raise DataError unless the looks average the same number of views of an image."""
    if len({record["tta"] for record in records}) > 1:
        told = ", ".join(
            f"{folder} look {record['number']} with tta {record['tta']}"
            for folder, record in zip(folders, records, strict=True)
        )
        raise DataError(
            "compare: the last looks differ in tta, so that a difference may come from the views and not from the "
            f"models: {told}. Evaluate all with the same --tta; each look at a holdout is recorded."
        )


def _last(folder: Path, holdout: str) -> tuple[Path, dict[str, Any]]:
    """Folder and record of the last finished evaluation."""
    found = []
    for path in (folder / "evaluations").glob("*"):
        match = re.fullmatch(rf"(\d+)-{re.escape(holdout)}", path.name)
        record = _record(path / "evaluation.json") if match else None
        if match and record is not None:
            found.append((int(match[1]), path, record))
    if not found:
        there = sorted({path.name.partition("-")[2] for path in (folder / "evaluations").glob("[0-9]*-*")})
        raise DataError(
            f"compare: {folder} has no finished evaluation on {holdout}"
            + (f" (it has: {', '.join(there)})" if there else "")
            + f". `launch.py evaluate {folder} --holdout {holdout}` makes one; each look at a holdout is recorded."
        )
    _, path, record = max(found, key=lambda each: each[0])
    return path, record


def _record(path: Path) -> dict[str, Any] | None:
    """None where the evaluation was not finished."""
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


def _whole(table: pd.DataFrame, labels: tuple[str, ...]) -> pd.DataFrame:
    """With every label of the run: one that the images do not have is unknown for all of them, and so never counts."""
    table = table.copy()
    for label in labels:
        if label not in table:
            table[label], table[label + TRUE] = np.float32(0), np.float32(np.nan)
    return table

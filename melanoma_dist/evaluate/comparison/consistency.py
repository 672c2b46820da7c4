"""Check that the files of a run agree with each other, and whether two folders hold the same models."""

from __future__ import annotations

import filecmp
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from melanoma_dist.artifacts.legacy import former
from melanoma_dist.artifacts.predictions import arrays
from melanoma_dist.data.labels import LABEL_SETS
from melanoma_dist.errors import DataError
from melanoma_dist.metrics.classification import Settings, label_metrics
from melanoma_dist.storage.untrusted import read_json

RECOMPUTED = ("auc", "average_precision")
"""Metrics that are recomputed: any change of a probability that matters here changes one of them."""
_TOLERANCE = 1e-6


def require_own_identity(folder: Path, summary: dict[str, Any], remedy: str) -> None:
    """Raise DataError unless ``record.json`` and ``summary.json`` describe the same run."""
    path, record = folder / "summary.json", folder / "record.json"
    recorded = _record(record).get("identity")
    if not isinstance(recorded, dict):
        raise DataError(f"compare: {record}: is missing or corrupt: it has no identity. Restore the file.")
    own = summary["identity"]
    pairs = {key: (own.get(key), recorded.get(key)) for key in sorted({*own, *recorded})}
    _require_equal(path, pairs, str(record), remedy)
    labels = list(LABEL_SETS.get(str(own.get("data.labels")), ()))
    expected = {
        "backbone": (summary["backbone"], own.get("model.backbone")),
        "seed": (summary["seed"], own.get("seed")),
        "labels": (summary["labels"], labels),
        "data.fingerprint": (summary["data"]["fingerprint"], own.get("data")),
    }
    _require_equal(path, expected, "its identity", remedy)


def _require_equal(path: Path, values: dict[str, tuple[Any, Any]], other: str, remedy: str) -> None:
    for field, (value, expected) in values.items():
        if value != expected:
            raise DataError(f"compare: {path}: {field} is {value!r}, but {expected!r} in {other}. {remedy}")


def require_recorded_metrics(
    path: Path, table: pd.DataFrame, labels: Sequence[str], recorded: dict[str, Any], source: str, remedy: str
) -> None:
    """Raise DataError unless a table of predictions has its recorded metrics.

    ``source``: the file that records them, and the rows that they describe.
    """
    for label in labels:
        truth, probability = (values[:, 0] for values in arrays(table, (label,)))
        computed = label_metrics(truth, probability, probability >= 0.5, None, Settings())
        for metric in RECOMPUTED:
            value, expected = computed.value(metric), recorded["labels"].get(label, {}).get(metric)
            if not _equal(value, expected):
                raise DataError(
                    f"compare: {path}: {metric} of {label} is {_number(value)} in this table, but {_number(expected)} "
                    f"in {source}: one of the two files was changed. {remedy}"
                )


def same_models(one: Path, other: Path) -> bool:
    """Whether two runs hold the same weights; without weights, whether one is a copy of the other's record."""
    models = [sorted((folder / "model").glob("fold-*.safetensors")) for folder in (one, other)]
    if all(models):
        if [path.name for path in models[0]] != [path.name for path in models[1]]:
            return False
        return all(filecmp.cmp(first, second, shallow=False) for first, second in zip(*models, strict=True))
    first, second = (_record(folder / "record.json") for folder in (one, other))
    return all(first.get(key) is not None and first.get(key) == second.get(key) for key in ("identity", "begun"))


def _record(path: Path) -> dict[str, Any]:
    """The content of a record; empty if it is missing or corrupt."""
    try:
        record = former(path, read_json(path))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _equal(value: float | None, expected: float | None) -> bool:
    if value is None or expected is None:
        return value is expected
    return abs(value - expected) <= _TOLERANCE


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.6f}"

"""Check that the files of a run agree with each other, and whether two folders hold the same models."""

from __future__ import annotations

import filecmp
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from melanoma_dist.artifacts.predictions import arrays
from melanoma_dist.artifacts.run_record import RECORD, read_run_record
from melanoma_dist.artifacts.summary import REFINALIZE, SUMMARY, RunSummary
from melanoma_dist.config.label_sets import label_set
from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.metrics.classification import Metrics, Settings, label_metrics

RECOMPUTED = ("auc", "average_precision")
"""Metrics that are recomputed: any change of a probability that matters here changes one of them."""
_TOLERANCE = 1e-6


def require_own_identity(folder: Path, summary: RunSummary) -> None:
    """Raise DataError unless ``record.json`` and ``summary.json`` describe the same run."""
    record, own = folder / RECORD, summary.identity
    recorded = read_run_record(record).identity
    try:
        labels = tuple(label_set(str(own.get("data.labels")), _text(own.get("data.headline"))))
    except ConfigError:
        labels = ()
    pairs: list[tuple[str, object, object, object]] = [
        *((key, own.get(key), recorded.get(key), record) for key in sorted({*own, *recorded})),
        ("backbone", summary.backbone, own.get("model.backbone"), "its identity"),
        ("seed", summary.seed, own.get("seed"), "its identity"),
        ("labels", list(summary.labels), list(labels), "its identity"),
        ("data.fingerprint", summary.data.fingerprint, own.get("data"), "its identity"),
    ]
    for field, value, expected, other in pairs:
        if value != expected:
            raise DataError(
                f"compare: {folder / SUMMARY}: {field} is {value!r}, but {expected!r} in {other}. {REFINALIZE}"
            )


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def require_recorded_metrics(
    path: Path, table: pd.DataFrame, labels: Sequence[str], recorded: Metrics, source: str, remedy: str
) -> None:
    """Raise DataError unless a table of predictions has its recorded metrics.

    ``source``: the file that records them, and the rows that they describe.
    """
    for label in labels:
        truth, probability = (values[:, 0] for values in arrays(table, (label,)))
        computed = label_metrics(truth, probability, probability >= 0.5, None, Settings())
        for metric in RECOMPUTED:
            value, expected = computed.value(metric), recorded.labels[label].value(metric)
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
    records = [folder / RECORD for folder in (one, other) if (folder / RECORD).is_file()]
    started = [(record.identity, record.started) for record in map(read_run_record, records)]
    return len(started) == 2 and started[0] == started[1]


def _equal(value: float | None, expected: float | None) -> bool:
    if value is None or expected is None:
        return value is expected
    return abs(value - expected) <= _TOLERANCE


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.6f}"

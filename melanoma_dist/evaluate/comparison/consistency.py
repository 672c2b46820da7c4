"""Whether the files of a run agree with one another, and whether two folders hold the same models."""

from __future__ import annotations

import filecmp
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from melanoma_dist.artifacts.predictions import arrays
from melanoma_dist.data.labels import LABEL_SETS
from melanoma_dist.errors import DataError
from melanoma_dist.metrics.classification import Settings, label_figures
from melanoma_dist.storage.untrusted import read_json

PROVEN = ("auc", "average_precision")
"""Figures that are computed anew: any change of a probability that matters here moves one of them."""
_TOLERANCE = 1e-6


def require_own_identity(folder: Path, summary: dict[str, Any], remedy: str) -> None:
    """Raise DataError unless ``record.json`` and ``summary.json`` tell of the same run."""
    path, record = folder / "summary.json", folder / "record.json"
    told = _record(record).get("identity")
    if not isinstance(told, dict):
        raise DataError(f"compare: {record}: is missing or damaged: it has no identity. Bring the file back.")
    own = summary["identity"]
    _require_equal(path, {key: (own.get(key), told.get(key)) for key in sorted({*own, *told})}, str(record), remedy)
    labels = list(LABEL_SETS.get(str(own.get("data.labels")), ()))
    wanted = {
        "backbone": (summary["backbone"], own.get("model.backbone")),
        "seed": (summary["seed"], own.get("seed")),
        "labels": (summary["labels"], labels),
        "data.fingerprint": (summary["data"]["fingerprint"], own.get("data")),
    }
    _require_equal(path, wanted, "its identity", remedy)


def _require_equal(path: Path, values: dict[str, tuple[Any, Any]], other: str, remedy: str) -> None:
    for field, (found, wanted) in values.items():
        if found != wanted:
            raise DataError(f"compare: {path}: {field} is {found!r}, and {other} says {wanted!r}. {remedy}")


def require_told_figures(
    path: Path, table: pd.DataFrame, labels: Sequence[str], told: dict[str, Any], where: str, remedy: str
) -> None:
    """Raise DataError unless a table of predictions has the figures that were ``told`` of it (FIGURES).

    ``where``: the file that tells them, and of which rows.
    """
    for label in labels:
        truth, probability = (values[:, 0] for values in arrays(table, (label,)))
        found = label_figures(truth, probability, probability >= 0.5, None, Settings())
        for figure in PROVEN:
            value, wanted = found[figure], told["labels"].get(label, {}).get(figure)
            if not _equal(value, wanted):
                raise DataError(
                    f"compare: {path}: {figure} of {label} is {_number(value)} by this table, and {_number(wanted)} "
                    f"by {where}: one of the two files was changed. {remedy}"
                )


def same_models(one: Path, other: Path) -> bool:
    """Whether two runs hold the same weights; where a run's are gone, whether it was begun as the same training."""
    models = [sorted((folder / "model").glob("fold-*.safetensors")) for folder in (one, other)]
    if all(models):
        if [path.name for path in models[0]] != [path.name for path in models[1]]:
            return False
        return all(filecmp.cmp(first, second, shallow=False) for first, second in zip(*models, strict=True))
    begun, other_begun = (_record(folder / "record.json") for folder in (one, other))
    return all(begun.get(key) is not None and begun.get(key) == other_begun.get(key) for key in ("identity", "begun"))


def _record(path: Path) -> dict[str, Any]:
    """What a record says; nothing where it is missing or damaged."""
    try:
        record = read_json(path)
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def _equal(found: float | None, wanted: float | None) -> bool:
    if found is None or wanted is None:
        return found is wanted
    return abs(found - wanted) <= _TOLERANCE


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.6f}"

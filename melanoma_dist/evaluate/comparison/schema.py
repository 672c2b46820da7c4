"""The fields that a comparison reads from the files of a run, and the error for a file without them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from melanoma_dist.artifacts.legacy import former
from melanoma_dist.data.folds import HEADLINE
from melanoma_dist.errors import DataError
from melanoma_dist.evaluate.comparison.consistency import RECOMPUTED
from melanoma_dist.storage.untrusted import read_json

Rule = tuple[Callable[[Any], bool], str]
Rules = dict[str, Rule]
"""The test and the rule in words of each dotted field. A field with a question mark may be absent or null."""
_LONGEST = 60  # characters of a value in a message


def read_object(path: Path, remedy: str) -> dict[str, Any]:
    """Read a JSON object from a file. Raises DataError for a corrupt file, and for one that holds anything else."""
    try:
        content = former(path, read_json(path))
    except (OSError, ValueError) as error:
        raise DataError(f"compare: {path}: cannot be read ({error}). {remedy}") from error
    if not isinstance(content, dict):
        raise DataError(f"compare: {path}: must hold a JSON object, but holds {_short(content)}. {remedy}")
    return content


def require_fields(path: Path, content: dict[str, Any], rules: Rules, remedy: str) -> None:
    """Raise DataError, with file and field, unless every rule holds."""
    missing = [field for field in rules if "." not in field and not field.endswith("?") and field not in content]
    if missing:
        raise DataError(f"compare: {path}: has no {', '.join(missing)}; another version wrote the file. {remedy}")
    for field, (holds, rule) in rules.items():
        name = field.rstrip("?")
        value = _at(content, name)
        if value is None and field.endswith("?"):
            continue
        if not holds(value):
            raise DataError(f"compare: {path}: {name} is {_short(value)}: must be {rule}. {remedy}")


def _at(content: Any, field: str) -> Any:
    """The value of a dotted field; None if a part of the path is missing."""
    for part in field.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _share(value: Any) -> bool:
    return _number(value) and 0 <= value <= 1


def _object(value: Any) -> bool:
    return isinstance(value, dict)


def _labels(value: Any) -> bool:
    return isinstance(value, list) and all(map(_text, value)) and len(set(value)) == len(value) and HEADLINE in value


def _metrics(value: Any) -> bool:
    """Whether each label has the recomputed metrics: a share or null for each."""
    entries = _at(value, "labels")
    return _object(entries) and all(
        _object(entry) and all(name in entry and (entry[name] is None or _share(entry[name])) for name in RECOMPUTED)
        for entry in entries.values()
    )


def _folds(value: Any) -> bool:
    return _object(value) and bool(value) and all(map(_metrics, value.values()))


def _training(value: Any) -> bool:
    names = ("epochs", "device_seconds", "images_per_s", "input_wait_share")
    return (
        _object(value)
        and bool(value)
        and all(
            _object(fold)
            and (fold.get("device") is None or _text(fold["device"]))
            and all(fold.get(name) is None or _number(fold[name]) for name in names)
            for fold in value.values()
        )
    )


def _repeats(value: Any) -> bool:
    """Whether the AUCs of the headline label are rows [folds][seeds] of shares or null."""
    seeds, rows = _at(value, "seeds"), _at(value, f"auc.{HEADLINE}")
    return (
        isinstance(seeds, list)
        and isinstance(rows, list)
        and all(isinstance(row, list) and len(row) == len(seeds) for row in rows)
        and all(auc is None or _share(auc) for row in rows for auc in row)
    )


def _evaluations(value: Any) -> bool:
    return isinstance(value, list) and all(
        _object(each) and _text(each.get("run")) and _whole(each.get("number")) for each in value
    )


def _thresholds(value: Any) -> bool:
    return _object(value) and all(map(_share, value.values()))


_TEXT: Rule = (_text, "a text")
_WHOLE: Rule = (_whole, "a whole number")
_OBJECT: Rule = (_object, "an object")
_BOOLEAN: Rule = (lambda value: isinstance(value, bool), "true or false")
_LABELS: Rule = (_labels, f"a list of labels with {HEADLINE} among them")
_METRICS: Rule = (_metrics, f"metrics with {' and '.join(RECOMPUTED)} of each label, 0 to 1 or null")

SUMMARY: Rules = {
    "synthetic": _BOOLEAN,
    "backbone": _TEXT,
    "seed": _WHOLE,
    "data": _OBJECT,
    "data.fingerprint": _TEXT,
    "labels": _LABELS,
    "threshold": (_share, "a number from 0 to 1"),
    "training": (_training, "an object with the cost of each fold"),
    "identity": _OBJECT,
    "out_of_fold": _OBJECT,
    "out_of_fold.by_image": _METRICS,
    "folds": (_folds, f"an object with {' and '.join(RECOMPUTED)} of each fold and label"),
    "repeats?": _WHOLE,
    "repeats_of?": (_repeats, f"the AUCs of {HEADLINE}, a row of numbers or null per fold, one for each seed"),
    "made_with?": _OBJECT,
    "made_with.libraries?": _OBJECT,
    "made_with.machine?": _OBJECT,
}
"""The fields of ``summary.json``."""

EVALUATION: Rules = {
    "what": _TEXT,
    "number": _WHOLE,
    "tta": _WHOLE,
    "images_sha256": _TEXT,
    "labels": _LABELS,
    "ensemble": _OBJECT,
    "ensemble.by_image": _METRICS,
    "ensemble.settings?": _OBJECT,
    "ensemble.settings.thresholds?": (_thresholds, "an object with a number from 0 to 1 for each label"),
    "earlier?": (_evaluations, "a list of evaluations, each with run and number"),
    "labels_absent?": _OBJECT,
    "data?": _OBJECT,
    "synthetic?": _BOOLEAN,
}
"""The fields of a finished ``evaluation.json``."""

"""The cost of a run, and the fields of configuration, code and machine in which runs differ."""

from __future__ import annotations

import math
import statistics
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from melanoma_dist.evaluate.comparison.records import Cost
from melanoma_dist.evaluate.comparison.runs import ComparedRun
from melanoma_dist.storage.untrusted import parse_json

_BUFFERS = (".running_mean", ".running_var", ".num_batches_tracked")  # state without gradients
_HEADER = 2**24  # bytes; no header of safetensors is longer


def cost(run: ComparedRun) -> Cost:
    """The cost of all folds of a run; None for what one of them does not record."""
    folds = list(run.summary["training"].values())
    devices = {entry.get("device") for entry in folds}
    seconds = _all(folds, "device_seconds")
    epochs = _all(folds, "epochs")
    return Cost(
        device=devices.pop() if len(devices) == 1 else None,
        device_hours=math.fsum(seconds) / 3600 if seconds else None,
        folds=len(folds),
        epochs=int(sum(epochs)) if epochs else None,
        images_per_s=_mean(_all(folds, "images_per_s")),
        input_wait_share=_mean(_all(folds, "input_wait_share")),
        parameters=parameters(run.folder / "model" / "fold-0.safetensors"),
    )


def parameters(path: Path) -> int | None:
    """The number of parameters of a saved model, from the header of its safetensors file; None if it has none.

    Running statistics of batch norms do not count.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = parse_json(file.read(min(length, _HEADER)))
        shapes = {name: list(map(int, entry["shape"])) for name, entry in header.items() if name != "__metadata__"}
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError):
        return None
    return sum(int(math.prod(shape)) for name, shape in shapes.items() if not name.endswith(_BUFFERS))


def differences(runs: Sequence[ComparedRun]) -> dict[str, list[Any]]:
    """The fields of configuration, code and machine that are not the same in all runs, with each run's value."""
    fields = [_fields(run) for run in runs]
    keys = sorted({key for each in fields for key in each})
    values = {key: [each.get(key) for each in fields] for key in keys}
    return {key: row for key, row in values.items() if any(value != row[0] for value in row)}


def _fields(run: ComparedRun) -> dict[str, Any]:
    makers = run.summary.get("made_with") or {}
    fields = dict(run.summary["identity"])
    fields |= {key: makers[key] for key in ("version", "code", "python") if key in makers}
    fields |= {f"library {name}": version for name, version in (makers.get("libraries") or {}).items()}
    fields |= {f"machine {name}": value for name, value in (makers.get("machine") or {}).items()}
    if "repeats" in run.summary:
        fields["repeats"] = run.summary["repeats"]
    if run.evaluation:
        fields |= {"evaluated with tta": run.evaluation.get("tta")}
        fields |= {f"threshold {label}": at for label, at in zip(run.labels, run.thresholds, strict=True)}
    elif run.labels:
        fields["threshold"] = run.thresholds[0]
    return fields


def _all(folds: Sequence[dict[str, Any]], key: str) -> list[float]:
    """A value of every fold; empty if one of them lacks it."""
    values = [entry.get(key) for entry in folds]
    return [] if any(value is None for value in values) else [float(value) for value in values if value is not None]


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None

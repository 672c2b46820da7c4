"""What a run cost, and what two runs differ in besides their figures."""

from __future__ import annotations

import math
import statistics
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from melanoma_dist.evaluate.comparison.runs import ComparedRun
from melanoma_dist.storage.untrusted import parse_json

_BUFFERS = (".running_mean", ".running_var", ".num_batches_tracked")  # state that is not learnt by gradients
_HEADER = 2**24  # bytes; a longer header of safetensors is none


def cost(contender: ComparedRun) -> dict[str, Any]:
    """Device-hours of all folds, epochs, mean speed and input wait of a fold, parameters; None for what is not told."""
    folds = list(contender.summary["training"].values())
    devices = {entry.get("device") for entry in folds}
    seconds = _all(folds, "device_seconds")
    epochs = _all(folds, "epochs")
    return {
        "device": devices.pop() if len(devices) == 1 else None,
        "device_hours": math.fsum(seconds) / 3600 if seconds else None,
        "folds": len(folds),
        "epochs": int(sum(epochs)) if epochs else None,
        "images_per_s": _mean(_all(folds, "images_per_s")),
        "input_wait_share": _mean(_all(folds, "input_wait_share")),
        "parameters": parameters(contender.folder / "model" / "fold-0.safetensors"),
    }


def parameters(path: Path) -> int | None:
    """Numbers that a saved model learns, from the header of its file (safetensors); None where there is none.

    Running statistics of batch norms are no parameters.
    """
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = parse_json(file.read(min(length, _HEADER)))
        shapes = {name: list(map(int, entry["shape"])) for name, entry in header.items() if name != "__metadata__"}
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError):
        return None
    return sum(int(math.prod(shape)) for name, shape in shapes.items() if not name.endswith(_BUFFERS))


def differing(contenders: Sequence[ComparedRun]) -> dict[str, list[Any]]:
    """The fields of the configurations, code and machines that are not the same in all runs, with each run's value."""
    told = [_fields(each) for each in contenders]
    keys = sorted({key for each in told for key in each})
    values = {key: [each.get(key) for each in told] for key in keys}
    return {key: found for key, found in values.items() if any(value != found[0] for value in found)}


def _fields(contender: ComparedRun) -> dict[str, Any]:
    made = contender.summary.get("made_with") or {}
    fields = dict(contender.summary["identity"])
    fields |= {key: made[key] for key in ("version", "code", "python") if key in made}
    fields |= {f"library {name}": version for name, version in (made.get("libraries") or {}).items()}
    fields |= {f"machine {name}": value for name, value in (made.get("machine") or {}).items()}
    if "repeats" in contender.summary:
        fields["repeats"] = contender.summary["repeats"]
    if contender.evaluation:
        fields |= {"evaluated with tta": contender.evaluation.get("tta")}
        fields |= {f"threshold {label}": at for label, at in zip(contender.labels, contender.thresholds, strict=True)}
    elif contender.labels:
        fields["threshold"] = contender.thresholds[0]
    return fields


def _all(folds: Sequence[dict[str, Any]], key: str) -> list[float]:
    """A value of every fold, or nothing where one of them lacks it."""
    values = [entry.get(key) for entry in folds]
    return [] if any(value is None for value in values) else [float(value) for value in values if value is not None]


def _mean(values: Sequence[float]) -> float | None:
    return statistics.fmean(values) if values else None

"""The cost of a run, and the fields of configuration, code and machine in which runs differ."""

from __future__ import annotations

import math
import statistics
import struct
from collections.abc import Sequence
from pathlib import Path

from melanoma_dist.evaluate.comparison.records import Cost
from melanoma_dist.evaluate.comparison.runs import ComparedRun
from melanoma_dist.storage.untrusted import parse_json

_BUFFERS = (".running_mean", ".running_var", ".num_batches_tracked")  # state without gradients
_HEADER = 2**24  # bytes; no header of safetensors is longer


def cost(run: ComparedRun) -> Cost:
    """The cost of all folds of a run."""
    folds = run.summary.training.values()
    devices = {fold.device for fold in folds}
    return Cost(
        device=devices.pop() if len(devices) == 1 else None,
        device_hours=math.fsum(fold.device_seconds for fold in folds) / 3600,
        folds=len(folds),
        epochs=sum(fold.epochs for fold in folds),
        images_per_s=statistics.fmean(fold.images_per_s for fold in folds),
        input_wait_share=statistics.fmean(fold.input_wait_share for fold in folds),
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


def differences(runs: Sequence[ComparedRun]) -> dict[str, list[object]]:
    """The fields of configuration, code and machine that are not the same in all runs, with each run's value."""
    fields = [_fields(run) for run in runs]
    keys = sorted({key for each in fields for key in each})
    values = {key: [each.get(key) for each in fields] for key in keys}
    return {key: row for key, row in values.items() if any(value != row[0] for value in row)}


def _fields(run: ComparedRun) -> dict[str, object]:
    environment = run.summary.environment
    fields: dict[str, object] = {
        **run.summary.identity,
        **{key: getattr(environment, key) for key in ("version", "code", "python")},
        **{f"library {name}": version for name, version in environment.libraries.items()},
        **{f"machine {name}": value for name, value in vars(environment.machine).items()},
        "repeats": run.summary.repeats,
    }
    if run.evaluation is None:
        return fields | {"threshold": run.thresholds[0]}
    fields |= {f"threshold {label}": at for label, at in zip(run.labels, run.thresholds, strict=True)}
    return fields | {"evaluated with tta": run.evaluation.tta}

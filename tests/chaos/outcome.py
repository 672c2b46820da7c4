"""The results of a run without its measured times: two runs have the same results if their outcomes are equal."""

from __future__ import annotations

import hashlib
import itertools
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from melanoma_dist.storage.locks import LOCK

_CLOCK = (
    "clock", "seconds", "images_per_s", "wait_share", "device_seconds", "input_wait_share", "seconds_of_last_command",
    "finished", "environment",
)  # fmt: skip

_TIMED = ("images_per_s", "wait_share", "seconds_per_epoch")  # of TensorBoard's scalars


class StepNoted(NamedTuple):
    """The start of a step."""

    process: int
    number: int  # from 0, over the whole training
    at: float  # seconds, by the machine's monotonic clock


def outcome(run: Path) -> dict[str, Any]:
    """Hashes and values of all results of a run, by name: weights, predictions, metrics, curves, last checkpoint."""
    files = [*run.glob("model/*.safetensors"), *run.glob("**/predictions.parquet"), run / "decision_rules.json"]
    results: dict[str, Any] = {str(file.relative_to(run)): _hash(file.read_bytes()) for file in files}
    results["summary"] = _timeless(json.loads((run / "summary.json").read_text()))
    for fold in sorted(run.glob("fold-*")):
        results |= {f"{fold.name} {key}": value for key, value in _trained(fold).items()}
    return results


def of_unit(run: Path, fold: int) -> dict[str, Any]:
    """The same for one fold of a run, finished or not."""
    folder = run / f"fold-{fold}"
    files = [run / "model" / f"fold-{fold}.safetensors", folder / "predictions.parquet"]
    return {file.name: _hash(file.read_bytes()) for file in files} | _trained(folder)


def _trained(fold: Path) -> dict[str, Any]:
    lines = (fold / "metrics.jsonl").read_text().splitlines()
    newest = max(fold.glob("checkpoints/epoch-*"))
    state = torch.load(newest / "state.pt", weights_only=True)
    return {
        "metrics": [_timeless(json.loads(line)) for line in lines],
        "scalars": _scalars(fold),
        "state": (newest.name, _timeless(state)),
    }


def differences(run: Path, other: Path) -> list[str]:
    """The names of the results in which two runs differ."""
    first, second = outcome(run), outcome(other)
    return [key for key in sorted({*first, *second}) if first.get(key) != second.get(key)]


def leftovers(run: Path) -> list[str]:
    """Temporary files in the folder of a finished run."""
    hidden = [path for path in run.rglob(".*") if path.name != LOCK and (path.is_file() or path.is_dir())]
    return [str(path.relative_to(run)) for path in {*hidden, *run.rglob("*.tmp"), *run.rglob("*.old")}]


def repeated_steps(trace: Path) -> list[int]:
    """The number of steps that each restart repeated. Raises ValueError for a missing step."""
    repeated = []
    for file in sorted(trace.glob("fold-*")):
        for before, after in itertools.pairwise(steps_noted(file)):
            again = before.number + 1 - after.number
            if again < 0 or (before.process == after.process and again):
                raise ValueError(f"{file.name}: step {after.number} came after step {before.number}")
            if before.process != after.process:
                repeated.append(again)
    return repeated


def steps_noted(file: Path) -> list[StepNoted]:
    """The steps of a fold in the order of their starts, from the trace of its processes."""
    lines = [line.split() for line in file.read_text().splitlines()]
    return [StepNoted(int(process), int(number), float(at)) for process, number, at in lines]


def _scalars(fold: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by tag, as TensorBoard shows them. Measured times count as 0."""
    events = EventAccumulator(str(fold), size_guidance={"scalars": 0}).Reload()
    return {
        tag: [(each.step, 0.0 if tag.endswith(_TIMED) else each.value) for each in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def _timeless(value: Any) -> Any:
    """A value without measured times, with hashes for tensors."""
    if isinstance(value, dict):
        return {key: _timeless(each) for key, each in value.items() if key not in _CLOCK}
    if isinstance(value, list | tuple):
        return [_timeless(each) for each in value]
    if isinstance(value, torch.Tensor):
        return str(value.dtype), list(value.shape), _hash(value.contiguous().numpy().tobytes())
    return value


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()

"""The real command on the GPU, with Ray: undisturbed, and with a rank killed by SIGKILL in the middle."""

from __future__ import annotations

import json
import os
import signal
import subprocess  # nosec B404  # for the program itself
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from on_gpu.settings import Row, Settings
from tests.chaos.outcome import differences, leftovers, repeated_steps

_ROOT = Path(__file__).resolve().parents[2]
_SABOTAGE = _ROOT / "tests" / "chaos" / "sabotage"
_LIMIT_S = 240.0
_KILLED_AT = 8  # the step before which the rank dies, of either fold and counted within its process


def command(settings: Settings) -> Iterator[Row]:
    """Two folds of two epochs each, twice; and whether both runs have the same results."""
    with tempfile.TemporaryDirectory() as folder:
        place = settings.out or Path(folder)
        place.mkdir(parents=True, exist_ok=True)
        runs = Path(folder, "runs")
        seconds, code = _run("whole", runs, place, settings)
        yield Row("undisturbed, two folds of two epochs", f"{seconds:.0f} s, exit code {code}", _about(runs / "whole"))
        fault = {"at": "melanoma_dist.train.step:TrainStep.step", "call": _KILLED_AT, "do": "kill"}
        mark = Path(folder, "killed")
        seconds, code = _run("killed", runs, place, settings, [{**fault, "mark": str(mark)}])
        again = repeated_steps(_trace(runs) / "killed")
        yield Row(
            "a rank killed by SIGKILL" if mark.exists() else "the rank was NOT killed",
            f"{seconds:.0f} s, exit code {code}",
            f"restarts repeated {again} steps; temporary files: {leftovers(runs / 'killed') or 'nothing'}",
        )
        different = differences(runs / "whole", runs / "killed")
        yield Row("both runs", "DIFFERENT" if different else "the same bytes", ", ".join(different))


def _run(
    name: str, runs: Path, place: Path, settings: Settings, faults: list[dict[str, object]] | None = None
) -> tuple[float, int]:
    """Seconds and exit code of the command. Its output goes to a file in ``place``. Raises TimeoutExpired."""
    _trace(runs).mkdir(exist_ok=True)
    path = os.pathsep.join(filter(None, [str(_SABOTAGE), os.environ.get("PYTHONPATH", "")]))
    chaos = {"PYTHONPATH": path, "CHAOS_FAULTS": json.dumps(faults or []), "CHAOS_TRACE": str(_trace(runs))}
    arguments = [sys.executable, str(_ROOT / "launch.py"), *_flags(settings), "--runs", str(runs), "--name", name]
    start = time.monotonic()
    with (place / f"command-{name}.log").open("wb") as log:
        inside = {**os.environ, **chaos}
        process = subprocess.Popen(  # noqa: S603  # nosec B603  # the program itself
            arguments, env=inside, stdout=log, stderr=log, start_new_session=True
        )
        try:
            code = process.wait(_LIMIT_S if settings.gpu is not None else 10 * _LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    return time.monotonic() - start, code


def _trace(runs: Path) -> Path:
    """The folder of the traces of steps, one for each run."""
    return runs.with_name("trace")


def _flags(settings: Settings) -> list[str]:
    model = ("resnet18", "128") if settings.gpu is not None else ("test_resnet", "32")
    return [
        *("--data", str(settings.data or "demo"), "--gpus", "0" if settings.gpu is None else "1"),
        *("--backbone", model[0], "--image-size", model[1], "--weights", "none", "--labels", "melanoma"),
        *("--augment", "dermoscopy", "--lr", "1e-3", "--folds", "2", "--epochs", "2", "--checkpoint-every", "3"),
    ]


def _about(run: Path) -> str:
    """The speed of each fold from the run's summary."""
    if not (run / "summary.json").is_file():
        return "no summary"
    training = json.loads((run / "summary.json").read_text())["training"]
    return "; ".join(f"fold {fold}: {each['images_per_s']:.0f} images/s" for fold, each in training.items())

"""What only a GPU can show: that it computes the same as the CPU and every time, and how fast everything is there.

    python benchmarks/gpu.py --out gpu-results                 # demo data, about 12 minutes on one GPU
    python benchmarks/gpu.py --sections pixels resume --data DATA
    python benchmarks/gpu.py --device cpu --batch-size 4       # a smoke test of this script; its figures mean nothing

Sections, the most important first:

    prove       claims about the training step, each with PASS or FAIL: replayed from a CUDA graph, with the bits of
                computed steps, faster than a plain timm loop, few launches, compiled by block
    decoder     which decoder reads JPEGs (nvJPEG's version, a probe, DALI's log, the engine's load), what that costs
                the CPU, and whether the launching thread waits
    pixels      `mixed` decoding against the CPU's pixels, and against itself
    command     the real command with Ray, undisturbed and with a rank killed: do both end with the same bytes?
    resume      one fold without Ray, left twice in the middle of an epoch, against one that never was
    checkpoint  how long a checkpoint stalls a training, and the share of the time that this is
    memory      a batch that does not fit into the GPU's memory
    train       each backbone at its own input size: images/s from end to end (DALI + TrainStep.step), of
                TrainStep.step on images that already lie on the GPU, and of a plain timm loop
    input       images/s of the input graph alone
    nccl        all GPUs: sums, bandwidth, gradients of DistributedDataParallel against one process
    modes       bfloat16, channels-last, deterministic kernels, each against without
    compile     torch.compile
    share       several folds on one GPU at a time, with and without MPS

Each section is tried on its own: one that fails is a row with its error, and so is one that could not begin within
``--minutes``. Speeds are medians of the equal slices of a measurement. Ours run with deterministic kernels, as a run
does; the plain loop takes the fastest ones.

Without a GPU it says so and ends with 0. Without DALI, what needs it is skipped and named. Only ``command`` needs Ray.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import cast

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as in a run: matrix products that can be repeated
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for tests/chaos

import torch
import tyro
from conditions import commit, machine, run_benchmark
from on_gpu.dali import DALI
from on_gpu.settings import Row, Section, Settings, skipped

from melanoma_dist import console

_HEADER = ("section", "figure", "value", "remark")
_WHERE = {
    "prove": "prove:prove", "decoder": "decoder:decoder", "pixels": "pixels:pixels", "command": "command:command",
    "resume": "resume:resume",
    "checkpoint": "saving:checkpoint", "memory": "memory:memory", "train": "training:training",
    "input": "pixels:input_speed", "nccl": "nccl:nccl", "modes": "training:modes", "compile": "training:compiled",
    "share": "share:share",
}  # fmt: skip
_NEED_DALI = ("decoder", "pixels", "command", "resume", "memory", "input")


def main() -> None:
    """Run the sections one by one and print their rows."""
    settings = tyro.cli(Settings, description=__doc__)
    if settings.device == "cuda" and not torch.cuda.is_available():
        console.info("No GPU here: nothing to measure. (--device cpu tries this script without one.)")
        return
    title = _conditions(settings)
    console.info(title)
    rows: list[Row] = []
    start = time.monotonic()
    for name, section in _sections(settings):
        for row in _attempt(name, section, start + 60 * settings.minutes):
            rows.append(row)
            console.info(f"{time.monotonic() - start:4.0f} s | " + " | ".join(row.cells))
            _write(settings.out, title, rows)  # at once: a process that is killed leaves its rows
    console.table(title, _HEADER, [row.cells for row in rows])


def _sections(settings: Settings) -> Iterator[tuple[str, Section]]:
    """The chosen sections by name."""
    for name in settings.sections:
        if name in _NEED_DALI and not DALI:
            yield name, partial(skipped, "DALI cannot be imported here")
        elif name == "train":
            for backbone in settings.backbones:
                yield f"train {backbone}", partial(_section(name), backbone, settings)
        else:
            yield name, partial(_section(name), settings)


def _section(name: str) -> Callable[..., Iterator[Row]]:
    """A section's function, imported when its turn comes: what it needs may be missing."""

    def section(*arguments: object) -> Iterator[Row]:
        module, _, function = _WHERE[name].partition(":")
        yield from cast(Callable[..., Iterator[Row]], getattr(import_module(f"on_gpu.{module}"), function))(*arguments)

    return section


def _attempt(name: str, section: Section, deadline: float) -> Iterator[Row]:
    """A section's rows as they come; its failure is the last of them."""
    if time.monotonic() > deadline:
        yield Row("skipped", "-", "time is up; more of it: --minutes", name)
        return
    try:
        for row in section():
            yield replace(row, section=name)
    except Exception as error:  # a benchmark that meets a surprise continues with the next
        text = " ".join(str(error).split()) or "no message"
        yield Row("FAILED", type(error).__name__, text[:300], name)
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _write(out: Path | None, title: str, rows: list[Row]) -> None:
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    (out / "gpu.json").write_text(json.dumps({"title": title, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    lines = [_HEADER, ("---",) * len(_HEADER), *(row.cells for row in rows)]
    table = "\n".join("| " + " | ".join(str(cell).replace("|", "/") for cell in line) + " |" for line in lines)
    (out / "gpu.md").write_text(f"{title}\n\n{table}\n")


def _conditions(settings: Settings) -> str:
    if settings.device == "cpu":
        hardware = "smoke on CPU: figures mean nothing"
    else:
        hardware = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}"
    return f"{hardware}; {machine()}; torch {torch.__version__}, timm {version('timm')}, DALI {DALI}; commit {commit()}"


if __name__ == "__main__":
    run_benchmark(main)

"""What only a GPU can show: that it computes the same as the CPU and every time, and how fast everything is there.

    python benchmarks/gpu.py --sections prove --minutes 9.5 --out gpu-results
    python benchmarks/gpu.py --out gpu-results                 # all sections, `prove` first, within 12 minutes
    python benchmarks/gpu.py --sections pixels resume --data DATA
    python benchmarks/gpu.py --device cpu --batch-size 4       # a smoke test of this script; its figures mean nothing

Sections, the most important first:

    prove       claims, each with PASS or FAIL. Of each backbone: steps replayed from a CUDA graph have the bits of
                computed ones, need few launches, and are 1.2 times as fast as a plain timm loop, also with images from
                DALI. Then: a recording that fails, the decoder, resuming, pixels, compiling
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

Each section, and each part of ``prove``, runs in a process of its own and has a limit of time. One that fails or takes
too long is a row with the reason, and ends nothing else. Every row is written at once: a run that is cut short and
started again with the same ``--out`` measures what is missing. Speeds are medians of the equal slices of a measurement.
Ours run with deterministic kernels, as a run does; the plain loop takes the fastest ones.

Without a GPU it says so and ends with 0. Without DALI, what needs it is skipped and named. Only ``command`` needs Ray.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # as in a run: matrix products that can be repeated
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # for tests/chaos

import torch
import tyro
from conditions import commit, machine, run_benchmark
from on_gpu.child import Child
from on_gpu.dali import DALI
from on_gpu.report import Report
from on_gpu.settings import Name, Row, Settings, skipped

from melanoma_dist import console

_LEAST_S = 5.0  # to begin a part
_SLOWER = 10  # a CPU, than the limits of time allow


class Part(NamedTuple):
    """A section, or a part of one."""

    name: str
    place: str
    """Module and function in ``on_gpu``."""
    limit_s: float
    needs_dali: bool = False
    arguments: tuple[object, ...] = ()
    """Of the function, before the settings."""


_SECTIONS: dict[Name, Part] = {
    part.name: part  # type: ignore[misc]
    for part in (
        Part("decoder", "decoder:decoder", 200, True),
        Part("pixels", "pixels:pixels", 150, True),
        Part("command", "command:command", 600, True),
        Part("resume", "resume:resume", 400, True),
        Part("checkpoint", "saving:checkpoint", 300),
        Part("memory", "memory:memory", 300, True),
        Part("input", "pixels:input_speed", 200, True),
        Part("nccl", "nccl:nccl", 200),
        Part("modes", "training:modes", 300),
        Part("compile", "training:compiled", 400),
        Part("share", "share:share", 900),
    )
}


def _claims(settings: Settings) -> Iterator[Part]:
    """The parts of ``prove``."""
    first, *others = settings.backbones if settings.gpu is not None else ("test_resnet",)
    yield Part(f"prove {first}", "prove:backbone", 100, arguments=(first,))
    yield Part("prove a failed recording", "prove:failed_recording", 50)
    yield Part("prove decoder", "decoder:decoder", 100, True)
    yield Part("prove resume", "resume:replayed", 100, True)
    for backbone in others:
        yield Part(f"prove {backbone}", "prove:backbone", 100, arguments=(backbone,))
    yield Part("prove pixels", "pixels:pixels", 60, True)
    yield Part("prove compile", "prove:compiled", 200)


def main() -> None:
    """Run the sections one by one and print their rows."""
    settings = tyro.cli(Settings, description=__doc__)
    if settings.device == "cuda" and not torch.cuda.is_available():
        console.info("No GPU here: nothing to measure. (--device cpu tries this script without one.)")
        return
    deadline = time.monotonic() + 60 * settings.minutes
    title = _conditions(settings)
    console.info(title)
    report = Report(title, settings.out)
    parts = [part for part in _parts(settings) if not report.has(part.name)]
    with ExitStack() as stack:
        for part, rows in _measured(parts, settings, deadline, stack):
            report.add(part.name, rows)
    report.print()


def _parts(settings: Settings) -> Iterator[Part]:
    """What the chosen sections consist of."""
    for name in settings.sections:
        if name == "prove":
            yield from _claims(settings)
        elif name == "train":
            for backbone in settings.backbones:
                yield Part(f"train {backbone}", "training:training", 200, arguments=(backbone,))
        else:
            yield _SECTIONS[name]


def _measured(
    parts: list[Part], settings: Settings, deadline: float, stack: ExitStack
) -> Iterator[tuple[Part, Iterator[Row]]]:
    """The rows of all parts, each from a process of its own. The next process starts while a part still measures."""
    following = stack.enter_context(Child())
    for part in parts:
        left = deadline - time.monotonic()
        if part.needs_dali and not DALI:
            yield part, skipped("DALI cannot be imported here")
        elif left < _LEAST_S:
            yield part, skipped("time is up; more of it: --minutes")
        else:
            child, following = following, stack.enter_context(Child())
            limit = part.limit_s * (1 if settings.gpu is not None else _SLOWER)
            yield part, child.run(part.place, (*part.arguments, settings), min(limit, left))


def _conditions(settings: Settings) -> str:
    if settings.device == "cpu":
        hardware = "smoke on CPU: figures mean nothing"
    else:
        hardware = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}"
    return f"{hardware}; {machine()}; torch {torch.__version__}, timm {version('timm')}, DALI {DALI}; commit {commit()}"


if __name__ == "__main__":
    run_benchmark(main)

"""What a step on a GPU is claimed to be: each claim with its measurement, and whether it holds."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import torch

from melanoma_dist.config.hardware import HardwareConfig
from melanoma_dist.input.loader import TrainingBatch
from melanoma_dist.train.step import TrainStep
from on_gpu.learning import MAIN_BACKBONE, as_in_a_run, fastest_kernels, stepper, synthetic, train_step
from on_gpu.settings import Row, Settings
from on_gpu.speed import Step, images_per_s, wait
from on_gpu.training import plain_timm
from tests.unit.train.recorders import TapeRecorder

_ROUNDS = 3
_STEPS = 20  # that must have the same bits
_FEW = 100  # launches by the host that a replayed step may need: inputs, seeds, the moving average
_WHOLE_MODEL_S = 203.0  # first step of inceptionresnetv2 compiled as a whole on an H200 (RESULTS.md)
_LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx", "cudaGraphLaunch")
_PLAIN, _COMPUTED, _REPLAYED = "a plain timm loop", "kernels one by one", "from a CUDA graph"


def prove(settings: Settings) -> Iterator[Row]:
    """The claims of each backbone, then those about compiling."""
    backbones = settings.backbones if settings.gpu is not None else ("test_resnet",)
    for backbone in backbones:
        yield from _replayed_bits(backbone, settings)
        yield from _speeds(backbone, settings)
        torch.cuda.empty_cache()  # does nothing without a GPU
    if settings.gpu is not None:
        yield from _compiled(settings)


def claim(holds: bool, figure: str, value: str, remark: str = "") -> Row:
    """A row that says whether a claim holds."""
    return Row(figure, f"{'PASS' if holds else 'FAIL'}: {value}", remark)


def _trained(
    backbone: str, settings: Settings, notes: list[str], graph: bool = True, compiled: bool = False
) -> TrainStep:
    """A training step; without a GPU, a tape stands in for the graph."""
    recorder = TapeRecorder() if graph and settings.gpu is None else None
    hardware = HardwareConfig(cuda_graph="auto" if graph else "off", compile=compiled)
    return train_step(backbone, settings, hardware, notes.append, recorder)


def _replayed_bits(backbone: str, settings: Settings) -> Iterator[Row]:
    """Whether steps are replayed, and with which bits: of images and rates that the record has not met."""
    as_in_a_run(settings)
    notes: list[str] = []
    states = []
    for graph in (True, False):
        trained = _trained(backbone, settings, notes, graph)
        first = synthetic(settings.size(backbone), settings)
        for number in range(_STEPS):
            trained.step(_shifted(first, number), number, 1e-4 / (1 + number))
        states.append({key: value.cpu() for key, value in trained._tensors().items()})
        if graph:
            yield claim(trained.replays, f"{backbone}, replayed", "yes" if trained.replays else "no", " ".join(notes))
    different = [key for key, value in states[0].items() if not value.equal(states[1][key])]
    text = f"{len(different)} of {len(states[0])} tensors differ"
    yield claim(not different, f"{backbone}, bits after {_STEPS} steps", text, ", ".join(different[:5]))


def _shifted(batch: TrainingBatch, number: int) -> TrainingBatch:
    """Other images and labels in each step, in the layout of the input graph: in another one, other kernels run."""
    images = batch.images.roll(number, 0).contiguous(memory_format=torch.channels_last)
    return replace(batch, images=images, targets=batch.targets.roll(1, 0), known=batch.known - number)


def _speeds(backbone: str, settings: Settings) -> Iterator[Row]:
    """Images/s of three ways in turns."""
    batch, notes = synthetic(settings.size(backbone), settings), list[str]()
    ways: dict[str, tuple[Callable[[], object], Step]] = {_PLAIN: (fastest_kernels, plain_timm(backbone, settings))}
    for name, graph in ((_COMPUTED, False), (_REPLAYED, True)):
        as_in_a_run(settings)
        step = stepper(_trained(backbone, settings, notes, graph), lambda: batch)
        ways[name] = (partial(as_in_a_run, settings), step)
    turns: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(_ROUNDS):
        for name, (prepare, step) in ways.items():
            prepare()
            turns[name].append(images_per_s(step, replace(settings, seconds=settings.seconds / _ROUNDS)))
    speeds = {name: statistics.median(each) for name, each in turns.items()}
    for name, speed in speeds.items():
        each = ", ".join(f"{turn:.0f}" for turn in turns[name])
        yield Row(f"{backbone}, {name}", f"{speed:.1f} images/s", f"median of {each}")
    for other in (_PLAIN, _COMPUTED):
        ratio = speeds[_REPLAYED] / speeds[other]
        yield claim(ratio >= 1, f"{backbone}, {_REPLAYED} against {other}", f"{ratio:.2f} times as fast")
    as_in_a_run(settings)
    counts = {name: _launches(ways[name][1], settings) for name in (_COMPUTED, _REPLAYED)}
    text = ", ".join(f"{count:.0f} {name}" for name, count in counts.items())
    yield claim(counts[_REPLAYED] <= _FEW, f"{backbone}, launches by the host in a step", text)


def _launches(step: Step, settings: Settings) -> float:
    """Calls of the driver that start kernels or graphs, per step; 0 without a GPU."""
    steps, activities = 3, [torch.profiler.ProfilerActivity.CPU]
    if settings.gpu is not None:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(steps):
            step()
        wait(torch.device(settings.device))
    calls: int = sum(each.count for each in profile.key_averages() if each.key in _LAUNCHES)
    return calls / steps


def _compiled(settings: Settings) -> Iterator[Row]:
    """The first step of a compiled training, again with the compiler's cache, and both together with the graph."""
    as_in_a_run(settings)
    batch, notes, seconds = synthetic(settings.size(MAIN_BACKBONE), settings), list[str](), list[float]()
    for _ in range(2):
        torch._dynamo.reset()
        trained = _trained(MAIN_BACKBONE, settings, notes, compiled=True)
        step = stepper(trained, partial(_same, batch))
        start = time.perf_counter()
        step()
        wait(torch.device(settings.device))
        seconds.append(time.perf_counter() - start)
    first, again = seconds
    yield claim(first < _WHOLE_MODEL_S / 2, f"{MAIN_BACKBONE}, first step compiled by block", f"{first:.0f} s",
                f"whole model: {_WHOLE_MODEL_S:.0f} s; a filled cache makes this quicker")  # fmt: skip
    yield claim(again <= first, f"{MAIN_BACKBONE}, again with the cache", f"{again:.0f} s")
    yield claim(trained.replays, f"{MAIN_BACKBONE}, compiled and replayed", "yes" if trained.replays else "no",
                " ".join(notes))  # fmt: skip
    yield Row(f"{MAIN_BACKBONE}, compiled and replayed", f"{images_per_s(step, settings):.1f} images/s")


def _same(batch: TrainingBatch) -> TrainingBatch:
    return batch

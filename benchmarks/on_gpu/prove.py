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
from melanoma_dist.train.cuda_graph import CudaGraphRecorder
from melanoma_dist.train.step import TrainStep
from melanoma_dist.train.step_graph import Recorder, Replay
from on_gpu.dali import DALI
from on_gpu.learning import (
    MAIN_BACKBONE,
    as_in_a_run,
    endless,
    fastest_kernels,
    loader,
    samples,
    stepper,
    synthetic,
    train_step,
)  # fmt: skip
from on_gpu.settings import Row, Settings, claim
from on_gpu.speed import Step, images_per_s, wait
from on_gpu.training import plain_timm
from tests.unit.train.recorders import FailingRecorder, TapeRecorder

_ROUNDS = 3
_SECONDS = 8.0  # of each way, at most: all claims must be shown in ten minutes
_STEPS = 20  # that must have the same bits
_NOT_FINITE = 7  # the step of them that must be skipped
_FEW = 100  # launches by the host that a replayed step may need: inputs, seeds, the moving average
_FASTER = 1.2  # than a plain loop
_FED = 0.95  # of the speed on images that lie on the device
_SMALL = "resnet10t"
_WHOLE_MODEL_S = 203.0  # first step of inceptionresnetv2 compiled as a whole on an H100 (RESULTS.md)
_LAUNCHES = ("cudaLaunchKernel", "cuLaunchKernel", "cudaGraphLaunch")  # and with suffixes
_PLAIN, _COMPUTED, _REPLAYED = "a plain timm loop", "kernels one by one", "from a CUDA graph"
_FROM_DALI = "from a CUDA graph, images from DALI"


def backbone(name: str, settings: Settings) -> Iterator[Row]:
    """The claims about a backbone's step: the same bits, few launches, faster than a plain loop."""
    yield from _same_bits(name, settings)
    yield from _speeds(name, settings)


def failed_recording(settings: Settings) -> Iterator[Row]:
    """A recording that fails leaves a training that computes the same, and a process that can record again."""
    name = _SMALL if settings.gpu is not None else "test_resnet"
    notes: list[str] = []
    recorder: Recorder = FailingRecorder() if settings.gpu is None else _WaitingRecorder()
    failing, computed = (
        _steps(name, settings, graph, notes, each) for graph, each in ((True, recorder), (False, None))
    )
    yield claim(not failing.replays, "a recording that waits for the device", "fails", " ".join(notes))
    yield _compared("bits after it", failing, computed)
    again = _steps(name, settings, True, notes)
    yield claim(again.replays, "the next training of the process", "replays" if again.replays else "does not replay")
    yield _compared("bits of that one", again, computed)


class _WaitingRecorder(CudaGraphRecorder):
    """Waits for the device while it records, which CUDA does not permit."""

    def record(self, function: Callable[[], None]) -> Replay:
        def waiting() -> None:
            function()
            torch.cuda.synchronize()

        return super().record(waiting)


def _trained(
    name: str, settings: Settings, notes: list[str], graph: bool = True, compiled: bool = False,
    recorder: Recorder | None = None,
) -> TrainStep:  # fmt: skip
    """A training step; without a GPU, a tape stands in for the graph."""
    if recorder is None and graph and settings.gpu is None:
        recorder = TapeRecorder()
    hardware = HardwareConfig(cuda_graph="auto" if graph else "off", compile=compiled)
    return train_step(name, settings, hardware, notes.append, recorder)


def _steps(name: str, settings: Settings, graph: bool, notes: list[str], recorder: Recorder | None = None) -> TrainStep:
    """Take some steps, of other images and at other rates each, one of them on images that are not finite."""
    as_in_a_run(settings)
    trained, first = _trained(name, settings, notes, graph, recorder=recorder), synthetic(settings.size(name), settings)
    for number in range(_STEPS):
        trained.step(_shifted(first, number), number, 1e-4 / (1 + number))
    return trained


def _shifted(batch: TrainingBatch, number: int) -> TrainingBatch:
    """Other images and labels in each step, in the layout of the input graph: in another one, other kernels run."""
    images = batch.images.roll(number, 0).contiguous(memory_format=torch.channels_last)
    if number == _NOT_FINITE:
        images[0, 0, 0, 0] = torch.inf
    return replace(batch, images=images, targets=batch.targets.roll(1, 0), known=batch.known - number)


def _same_bits(name: str, settings: Settings) -> Iterator[Row]:
    """Whether steps are replayed, and with which bits: of images and rates that the record has not met."""
    notes: list[str] = []
    replayed, computed = (_steps(name, settings, graph, notes) for graph in (True, False))
    yield claim(replayed.replays, f"{name}, replayed", "yes" if replayed.replays else "no", " ".join(notes))
    yield _compared(f"{name}, bits after {_STEPS} steps", replayed, computed)
    skipped = replayed.skipped(), computed.skipped()
    yield claim(skipped == (1, 1), f"{name}, steps that are not finite", f"{skipped[0]} and {skipped[1]} skipped of 1")


def _compared(figure: str, one: TrainStep, other: TrainStep) -> Row:
    tensors, others = one._tensors(), other._tensors()
    different = [key for key, value in tensors.items() if not value.equal(others[key])]
    text = f"{len(different)} of {len(tensors)} tensors differ"
    return claim(not different, figure, text, ", ".join(different[:5]))


def _speeds(name: str, settings: Settings) -> Iterator[Row]:
    """Images/s of several ways in turns."""
    ways = _ways(name, settings)
    each = replace(settings, seconds=min(settings.seconds, _SECONDS) / _ROUNDS)
    turns: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(_ROUNDS):
        for way, (prepare, step) in ways.items():
            prepare()
            turns[way].append(images_per_s(step, each))
    speeds = {way: statistics.median(results) for way, results in turns.items()}
    for way, speed in speeds.items():
        results = ", ".join(f"{turn:.0f}" for turn in turns[way])
        yield Row(f"{name}, {way}", f"{speed:.1f} images/s", f"median of {results}")
    for way, other, least in (
        (_REPLAYED, _COMPUTED, 1.0), (_REPLAYED, _PLAIN, _FASTER), (_FROM_DALI, _PLAIN, _FASTER),
        (_FROM_DALI, _REPLAYED, _FED),
    ):  # fmt: skip
        if way in speeds:
            ratio = speeds[way] / speeds[other]
            yield claim(ratio >= least, f"{name}, {way} / {other}", f"{ratio:.2f}", f"at least {least}")
    as_in_a_run(settings)
    counts = {way: _launches(ways[way][1], settings) for way in (_COMPUTED, _REPLAYED)}
    text = ", ".join(f"{count:.0f} {way}" for way, count in counts.items())
    yield claim(counts[_REPLAYED] <= _FEW, f"{name}, launches by the host in a step", text, f"at most {_FEW}")


def _ways(name: str, settings: Settings) -> dict[str, tuple[Callable[[], object], Step]]:
    """The steps of each way to train, each with what sets the device up for it."""
    batch, notes = synthetic(settings.size(name), settings), list[str]()
    ours = partial(as_in_a_run, settings)
    computed, replayed = (_trained(name, settings, notes, graph) for graph in (False, True))
    ways: dict[str, tuple[Callable[[], object], Step]] = {
        _PLAIN: (fastest_kernels, plain_timm(name, settings)),
        _COMPUTED: (ours, stepper(computed, lambda: batch)),
        _REPLAYED: (ours, stepper(replayed, lambda: batch)),
    }
    if DALI:
        batches = endless(loader(samples(settings), name, "dermoscopy", settings))
        ways[_FROM_DALI] = ours, stepper(replayed, lambda: next(batches))
    return ways


def _launches(step: Step, settings: Settings) -> float:
    """Calls of the driver that start kernels or graphs, per step; 0 without a GPU."""
    steps, activities = 3, [torch.profiler.ProfilerActivity.CPU]
    if settings.gpu is not None:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profile:
        for _ in range(steps):
            step()
        wait(torch.device(settings.device))
    calls: int = sum(each.count for each in profile.key_averages() if each.key.startswith(_LAUNCHES))
    return calls / steps


def compiled(settings: Settings) -> Iterator[Row]:
    """The first step of a compiled training, again with the compiler's cache, and both together with the graph."""
    name = MAIN_BACKBONE if settings.gpu is not None else "test_resnet"
    as_in_a_run(settings)
    batch, notes, seconds = synthetic(settings.size(name), settings), list[str](), list[float]()
    for _ in range(2):
        torch._dynamo.reset()
        trained = _trained(name, settings, notes, compiled=True)
        step = stepper(trained, lambda: batch)
        start = time.perf_counter()
        step()
        wait(torch.device(settings.device))
        seconds.append(time.perf_counter() - start)
    first, again = seconds
    remark = f"whole model: {_WHOLE_MODEL_S:.0f} s; a filled cache makes this quicker"
    yield claim(first < _WHOLE_MODEL_S / 2, f"{name}, first step compiled by block", f"{first:.0f} s", remark)
    yield claim(again <= first, f"{name}, again with the cache", f"{again:.0f} s")
    yield claim(trained.replays, f"{name}, compiled and replayed", "yes" if trained.replays else "no", " ".join(notes))
    speed = images_per_s(step, replace(settings, seconds=min(settings.seconds, _SECONDS)))
    yield Row(f"{name}, compiled and replayed", f"{speed:.1f} images/s")

"""What only a GPU can show: that it computes the same as the CPU, and how fast everything is there.

    python benchmarks/gpu.py --out gpu-results                 # demo data, about 12 minutes on one GPU
    python benchmarks/gpu.py --data DATA --batch-size 128 --minutes 20
    python benchmarks/gpu.py --device cpu --batch-size 4       # a smoke test of this script; its figures mean nothing

Sections: `mixed` decoding against the CPU's pixels; throughput of the input graph; NCCL over all GPUs (sums, bandwidth,
gradients of DistributedDataParallel against one process); for each backbone at its own input size the images/s of
training from end to end (DALI + Learner.step), of Learner.step on images that already lie on the GPU, and of a plain
timm loop; bfloat16, channels-last, deterministic kernels and torch.compile, each against without. Each section is tried
on its own: one that fails is a row with its error, and so is one that could not begin within ``--minutes``. Speeds are
medians of the equal slices of a measurement. Ours run with deterministic kernels, as a run does; the plain loop takes
the fastest ones.

Without a GPU it says so and ends with 0. Without DALI, what needs it is skipped and named. It needs no Ray.
"""

from __future__ import annotations

import importlib
import json
import os
import socket
import statistics
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt
import timm
import torch
import torch.distributed as dist
import tyro
from conditions import commit, ended, machine
from torch import nn
from torch.multiprocessing.spawn import spawn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from melanoma_dist.config import HardwareConfig, InputConfig, ModelConfig, RunConfig
from melanoma_dist.data.demo import demo_dataset
from melanoma_dist.data.labels import LABEL_SETS, targets
from melanoma_dist.data.manifest import load_dataset
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.dist.world import detect
from melanoma_dist.errors import ConfigError
from melanoma_dist.input import stream
from melanoma_dist.log import say, show_table
from melanoma_dist.models.backbones import LITERATURE, expectation, timm_name
from melanoma_dist.models.classifier import build_classifier
from melanoma_dist.world import World


def _dali_version() -> str | None:
    """None where DALI is not, or does not load beside this PyTorch."""
    try:
        dali = importlib.import_module("nvidia.dali.fn") and importlib.import_module("nvidia.dali")
    except (ImportError, OSError):
        return None
    return str(dali.__version__)


DALI = _dali_version()


def _stand_in_for_dali() -> None:
    """Let the learner be imported where DALI is not: it takes the loader's batches and never touches the graph."""
    module = types.ModuleType("melanoma_dist.input.graph")
    for name in ("Frame", "Graph", "GraphInput", "plain", "varied"):
        setattr(module, name, None)
    sys.modules[module.__name__] = module


if not (DALI or TYPE_CHECKING):
    _stand_in_for_dali()

from melanoma_dist.input.graph import Frame, Graph, GraphInput, plain, varied  # noqa: E402
from melanoma_dist.input.loader import Samples, TrainingBatch, TrainingLoader  # noqa: E402
from melanoma_dist.train.learner import Learner  # noqa: E402

_HEADER = ("section", "figure", "value", "remark")
_LABELS = len(LABEL_SETS["isic2019"])
_MODES_BACKBONE = "inceptionresnetv2"  # the one that bfloat16, layout and compile are tried on
_WARM_UP_STEPS = 5
_SLICES = 5
_SMOKE_SIZE = 96  # pixels; the real sizes would take a CPU minutes


@dataclass(frozen=True)
class Settings:
    """What is measured, and for how long."""

    data: Path | None = None
    """Prepared data set; the demo data, made on first use, where not given."""
    out: Path | None = None
    """Folder for gpu.md and gpu.json."""
    device: Literal["cuda", "cpu"] = "cuda"
    """cuda, or cpu for a smoke test of this script."""
    batch_size: int = 64
    """Images per step and GPU, 2 to 4096."""
    seconds: float = 20.0
    """Length of each measurement, above 0 and at most 600."""
    minutes: float = 12.0
    """No section begins later than this, above 0 and at most 600."""
    backbones: tuple[str, ...] = tuple(LITERATURE)
    """Backbones that are trained."""
    threads: int | None = None
    """DALI threads; all cores but one where not given."""

    def __post_init__(self) -> None:
        rules = {"batch_size": (2, 4096), "seconds": (0.01, 600), "minutes": (0.01, 600)}
        for name, (low, high) in rules.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError.of(name, getattr(self, name), f"must be {low} to {high}")
        for backbone in self.backbones:
            timm_name(backbone)

    @property
    def gpu(self) -> int | None:
        """Index of the GPU that everything runs on but NCCL, which takes all."""
        return 0 if self.device == "cuda" else None

    def size(self, backbone: str) -> int:
        """Side of the input in pixels: the backbone's own."""
        return _SMOKE_SIZE if self.gpu is None else expectation(backbone).size

    @property
    def world(self) -> World:
        """The one rank of everything but NCCL."""
        return World(gpu=self.gpu, threads=self.threads or max(1, len(os.sched_getaffinity(0)) - 1))


@dataclass(frozen=True)
class Row:
    """One line of the result."""

    section: str
    figure: str
    value: str
    remark: str = ""


Section = Callable[[], Iterator[Row]]


def main() -> None:
    """Run the sections one by one and print what they found."""
    settings = tyro.cli(Settings, description=__doc__)
    if settings.device == "cuda" and not torch.cuda.is_available():
        say("No GPU here: nothing to measure. (--device cpu tries this script without one.)")
        return
    title = _conditions(settings)
    say(title)
    rows: list[Row] = []
    deadline = time.monotonic() + 60 * settings.minutes
    for name, section in _sections(settings).items():
        for row in _attempt(name, section, deadline):
            rows.append(row)
            say(f"{row.section} | {row.figure} | {row.value} | {row.remark}")
            _write(settings.out, title, rows)  # at once: a process that is killed leaves what it found
    show_table(title, _HEADER, [tuple(asdict(row).values()) for row in rows])


def _sections(settings: Settings) -> dict[str, Section]:
    """Every section by name; cheap and certain ones first."""
    inputs: dict[str, Section] = {
        "pixels": partial(_pixels, settings),
        "input": partial(_input_speed, settings),
    }
    sections = {name: section if DALI else _no_dali for name, section in inputs.items()}
    sections |= {"nccl": partial(_nccl, settings)}
    for backbone in settings.backbones:
        sections[f"train {backbone}"] = partial(_training, backbone, settings)
    sections["modes"] = partial(_modes, settings)
    sections["compile"] = partial(_compiled, settings)
    return sections


def _attempt(name: str, section: Section, deadline: float) -> Iterator[Row]:
    """A section's rows as they come; its failure is the last of them."""
    if time.monotonic() > deadline:
        yield Row(name, "skipped", "-", "time is up; more of it: --minutes")
        return
    try:
        for row in section():
            yield replace(row, section=name)
    except Exception as error:  # a benchmark that meets a surprise has to go on to the next
        text = " ".join(str(error).split()) or "no message"
        yield Row(name, "FAILED", type(error).__name__, text[:300])
    finally:
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _no_dali() -> Iterator[Row]:
    yield Row("", "skipped", "-", "DALI cannot be imported here")


# Pixels and input


def _samples(settings: Settings) -> Samples:
    dataset = load_dataset(settings.data or demo_dataset())
    manifest = dataset.manifest
    largest = (int(manifest["width"].max()), int(manifest["height"].max()))
    return Samples(ShardReader(dataset), np.arange(len(manifest)), targets(manifest, LABEL_SETS["isic2019"]), largest)


def _frame(backbone: str, settings: Settings) -> Frame:
    expected = expectation(backbone)
    return Frame(settings.size(backbone), expected.mean, expected.std)


def _pixels(settings: Settings) -> Iterator[Row]:
    """The same images through the graph on the CPU and on the GPU, in grey levels of 255."""
    samples, frame = _samples(settings), _frame(_MODES_BACKBONE, settings)
    count = min(settings.batch_size, len(samples.rows))
    encoded = samples.encoded(np.arange(count))
    for policy in (None, *stream.POLICIES):
        given = _graph_input(encoded, policy, frame)
        rotate = policy is not None and stream.POLICIES[policy].rotation > 0
        ours, theirs = (
            _once(given, frame, settings.world.threads, gpu, rotate, samples.largest) for gpu in (None, settings.gpu)
        )
        levels = (ours - theirs).abs() * 255 * torch.tensor(frame.std).view(1, 3, 1, 1)
        share = (levels > 1.5).double().mean().item()
        value = f"max {levels.max().item():.2f}, mean {levels.mean().item():.3f} levels"
        yield Row("", f"GPU against CPU, {policy or 'evaluation'}", value, f"{share:.3%} differ by more than 1.5")


def _graph_input(encoded: list[npt.NDArray[np.uint8]], policy: str | None, frame: Frame) -> GraphInput:
    if policy is None:
        return plain(encoded, frame)
    return varied(encoded, stream.parameters(stream.POLICIES[policy], 0, 0, 0, len(encoded)), frame)


def _once(
    given: GraphInput, frame: Frame, threads: int, gpu: int | None, rotate: bool, largest: tuple[int, int]
) -> torch.Tensor:
    """One batch through a graph of its own, on the CPU in the end."""
    graph = Graph(lambda step: given if step == 0 else None, frame, len(given.encoded), threads, gpu, rotate, largest)
    return next(iter(graph)).float().cpu().contiguous()


def _input_speed(settings: Settings) -> Iterator[Row]:
    samples = _samples(settings)
    for policy in ("light", "dermoscopy"):
        loader = _loader(samples, _MODES_BACKBONE, policy, settings)
        batches = _endless(loader)
        speed = _speed(lambda batches=batches: len(next(batches).images), settings)  # type: ignore[misc]
        yield Row("", f"graph alone, {policy}", f"{speed:.0f} images/s", f"{settings.world.threads} DALI threads")


def _loader(samples: Samples, backbone: str, policy: str, settings: Settings) -> TrainingLoader:
    return TrainingLoader(samples, _frame(backbone, settings), settings.batch_size, policy, False, 0, settings.world)


def _endless(loader: TrainingLoader) -> Iterator[TrainingBatch]:
    epoch = 0
    while True:
        yield from loader.epoch(epoch)
        epoch += 1


# Communication


def _nccl(settings: Settings) -> Iterator[Row]:
    """Collectives over one rank per GPU. Without a GPU: two ranks and gloo."""
    ranks = torch.cuda.device_count() if settings.device == "cuda" else 2
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder, "answer.json")
        spawn(_rank, (ranks, port, settings.device, str(answer)), nprocs=ranks)
        for figure, value, remark in json.loads(answer.read_text()):
            yield Row("", figure, value, remark)


def _rank(rank: int, ranks: int, port: int, kind: str, answer: str) -> None:
    """What each rank does; the first one writes what it found."""
    device = torch.device(kind, rank) if kind == "cuda" else torch.device("cpu")
    if kind == "cuda":
        torch.cuda.set_device(device)
    torch.set_num_threads(1)
    backend = "nccl" if kind == "cuda" else "gloo"
    dist.init_process_group(backend, init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=ranks)
    try:
        found = [
            ("all-reduce is the sum", _sum_is_right(rank, ranks, device), f"{ranks} ranks, {backend}"),
            ("all-reduce bandwidth", _bandwidth(ranks, device), "64 MB float32; bus bandwidth as nccl-tests has it"),
            ("DDP gradient against one process", _ddp_difference(rank, ranks, device), "relative; below 1e-4 is equal"),
        ]
    finally:
        dist.destroy_process_group()
    if rank == 0:
        Path(answer).write_text(json.dumps(found))


def _sum_is_right(rank: int, ranks: int, device: torch.device) -> str:
    values = torch.arange(1000, device=device) + rank
    dist.all_reduce(values)
    expected = ranks * torch.arange(1000) + ranks * (ranks - 1) // 2
    return "yes" if torch.equal(values.cpu(), expected) else "NO"


def _bandwidth(ranks: int, device: torch.device) -> str:
    values = torch.zeros(16 * 2**20, device=device)
    for _ in range(3):
        dist.all_reduce(values)
    _wait(device)
    start, repeats = time.perf_counter(), 10
    for _ in range(repeats):
        dist.all_reduce(values)
    _wait(device)
    seconds = (time.perf_counter() - start) / repeats
    bus = values.numel() * 4 * 2 * (ranks - 1) / ranks / seconds / 1e9
    return f"{1000 * seconds:.2f} ms, bus {bus:.1f} GB/s"


def _ddp_difference(rank: int, ranks: int, device: torch.device) -> str:
    """Gradients of shares of a batch, averaged by DDP, against those of the whole batch; no batch norm, float64."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 4)).double().to(device)
    images = torch.randn(4 * ranks, 3, 16, 16, dtype=torch.float64).to(device)
    model(images).square().mean().backward()
    alone = torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])
    model.zero_grad()
    parallel = DistributedDataParallel(model, device_ids=[rank] if device.type == "cuda" else None)
    parallel(images[stream.rank_slice(rank, ranks)]).square().mean().backward()
    averaged = torch.cat([parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None])
    return f"{((averaged - alone).abs().max() / alone.abs().max()).item():.1e}"


# Training


def _as_in_a_run(settings: Settings) -> World:
    """Set this process up as a rank of a run is: deterministic kernels."""
    return detect(settings.gpu, settings.world.threads)


def _fastest_kernels() -> None:
    """The usual settings where nothing has to be repeatable: whatever kernels are fastest."""
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = True


def _training(backbone: str, settings: Settings) -> Iterator[Row]:
    """Images/s of three ways to train a backbone."""
    size = settings.size(backbone)
    remark = f"{size}x{size}, batch {settings.batch_size}"
    _fastest_kernels()
    step = _plain_timm(backbone, settings)
    yield _measured("plain timm, images on the device", step, settings, remark)
    del step
    _as_in_a_run(settings)
    learner = _learner(backbone, settings, HardwareConfig())
    batch = _synthetic(size, settings)
    yield _measured("Learner.step, images on the device", _stepper(learner, lambda: batch), settings, remark)
    if not DALI:
        yield replace(next(_no_dali()), figure="end to end: skipped")
        return
    batches = _endless(_loader(_samples(settings), backbone, "dermoscopy", settings))
    remark += f", policy dermoscopy, {settings.world.threads} DALI threads"
    yield _measured("end to end, DALI + Learner.step", _stepper(learner, lambda: next(batches)), settings, remark)


def _plain_timm(backbone: str, settings: Settings) -> Callable[[], int]:
    """The loop anyone would write: timm, bfloat16 autocast, channels-last, Adam; nothing of ours."""
    device, size = settings.device, settings.size(backbone)
    layout = torch.channels_last if device == "cuda" else torch.preserve_format
    model = timm.create_model(timm_name(backbone), num_classes=_LABELS).to(device, memory_format=layout).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    images = torch.randn(settings.batch_size, 3, size, size, device=device).to(memory_format=layout)
    truth = torch.zeros(settings.batch_size, _LABELS, device=device)

    def step() -> int:
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            logits = model(images)
        logits = logits[0] if isinstance(logits, tuple) else logits
        F.binary_cross_entropy_with_logits(logits.float(), truth).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return len(images)

    return step


def _learner(backbone: str, settings: Settings, hardware: HardwareConfig) -> Learner:
    config = RunConfig(
        input=InputConfig(batch_size=settings.batch_size),
        model=ModelConfig(backbone=backbone, weights="none"),
        hardware=hardware,
    )
    model = build_classifier(config.model, settings.size(backbone), _LABELS, seed=0)
    labels = np.eye(_LABELS, dtype=np.float32)
    learner = Learner(model, labels, config, settings.world)
    learner.begin_epoch(frozen=False)
    return learner


def _synthetic(size: int, settings: Settings, contiguous: bool = False) -> TrainingBatch:
    """Images that already lie on the device, in the layout that the graph gives them."""
    count = settings.batch_size
    drawn = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, size, size, generator=drawn).to(settings.device)
    images = images if contiguous else images.to(memory_format=torch.channels_last)
    labels = torch.eye(_LABELS).repeat(-(-count // _LABELS), 1)[:count].to(settings.device)
    return TrainingBatch(images, labels, np.arange(count), labels.numel())


def _stepper(learner: Learner, batch: Callable[[], TrainingBatch]) -> Callable[[], int]:
    number = 0

    def step() -> int:
        nonlocal number
        given = batch()
        learner.step(given, number, 1.0)
        number += 1
        return len(given.images)

    return step


def _modes(settings: Settings) -> Iterator[Row]:
    """bfloat16, channels-last and deterministic kernels, each against without, on one backbone."""
    fastest = "bf16, channels-last, fastest kernels"
    modes = {
        "bf16, channels-last": HardwareConfig(),
        "bf16, contiguous": HardwareConfig(channels_last=False),
        "fp32, channels-last": HardwareConfig(amp=False),
        fastest: HardwareConfig(),
    }
    losses: dict[str, float] = {}
    for name, hardware in modes.items():
        _as_in_a_run(settings)
        if name == fastest:
            _fastest_kernels()
        batch = _synthetic(settings.size(_MODES_BACKBONE), settings, contiguous=not hardware.channels_last)
        learner = _learner(_MODES_BACKBONE, settings, hardware)
        step = _stepper(learner, partial(_same, batch))
        step()
        losses[name] = learner.take_loss()
        yield _measured(f"{_MODES_BACKBONE}, {name}", step, settings, f"loss of the first step {losses[name]:.5f}")
        del learner, step
        torch.cuda.empty_cache()  # does nothing without a GPU
    low, full = losses["bf16, channels-last"], losses["fp32, channels-last"]
    yield Row(
        "", "loss, bf16 against fp32", f"{abs(low - full) / full:.2e}", "relative, first step, same weights and images"
    )


def _same(batch: TrainingBatch) -> TrainingBatch:
    return batch


def _compiled(settings: Settings) -> Iterator[Row]:
    """torch.compile; without it is a row of ``modes``."""
    if settings.gpu is None:
        yield Row("", "skipped", "-", "compiling for a CPU takes minutes and shows nothing")
        return
    _as_in_a_run(settings)
    batch = _synthetic(settings.size(_MODES_BACKBONE), settings)
    learner = _learner(_MODES_BACKBONE, settings, HardwareConfig(compile=True))
    step = _stepper(learner, partial(_same, batch))
    start = time.perf_counter()
    step()
    _wait(torch.device(settings.device))
    remark = (
        f"first step {time.perf_counter() - start:.0f} s, loss {learner.take_loss():.5f}; without: the row in modes"
    )
    yield _measured(f"{_MODES_BACKBONE}, compiled", step, settings, remark)


# Measuring and telling


def _measured(figure: str, step: Callable[[], int], settings: Settings, remark: str) -> Row:
    """Images/s of a step, and the most memory it took."""
    on_gpu = settings.gpu is not None
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    speed = _speed(step, settings)
    memory = f", peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB" if on_gpu else ""
    return Row("", figure, f"{speed:.1f} images/s", remark + memory)


def _speed(step: Callable[[], int], settings: Settings) -> float:
    """Median images/s over slices of ``settings.seconds``, after a warm-up; the device is waited for at both ends."""
    device = torch.device(settings.device)
    on_gpu = settings.gpu is not None
    for _ in range(_WARM_UP_STEPS if on_gpu else 1):
        step()
    slice_s = settings.seconds / _SLICES
    # As many steps as fill a slice, found beforehand: to look at the clock after each would mean to wait for each.
    steps = max(1, round(slice_s / _seconds(step, _WARM_UP_STEPS, device)[0] * _WARM_UP_STEPS)) if on_gpu else 1
    found = [_seconds(step, steps, device) for _ in range(_SLICES if on_gpu else 1)]
    return statistics.median(images / seconds for seconds, images in found)


def _seconds(step: Callable[[], int], steps: int, device: torch.device) -> tuple[float, int]:
    """How long some steps take, and how many images they are."""
    _wait(device)
    start = time.perf_counter()
    images = sum(step() for _ in range(steps))
    _wait(device)
    return time.perf_counter() - start, images


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _write(out: Path | None, title: str, rows: list[Row]) -> None:
    if out is None:
        return
    out.mkdir(parents=True, exist_ok=True)
    (out / "gpu.json").write_text(json.dumps({"title": title, "rows": [asdict(row) for row in rows]}, indent=1) + "\n")
    lines = [_HEADER, ("---",) * len(_HEADER), *(tuple(asdict(row).values()) for row in rows)]
    table = "\n".join("| " + " | ".join(str(cell).replace("|", "/") for cell in line) + " |" for line in lines)
    (out / "gpu.md").write_text(f"{title}\n\n{table}\n")


def _conditions(settings: Settings) -> str:
    if settings.device == "cpu":
        hardware = "smoke on CPU: figures mean nothing"
    else:
        hardware = f"{torch.cuda.device_count()} x {torch.cuda.get_device_name(0)}, CUDA {torch.version.cuda}"
    return (
        f"{hardware}; {machine()}; torch {torch.__version__}, timm {timm.__version__}, DALI {DALI}; commit {commit()}"
    )


if __name__ == "__main__":
    ended(main)

"""What it costs on the CPU to map the memory of large tensors anew: with glibc's defaults, and as the program sets it.

    python benchmarks/memory_reuse.py --backbone tf_efficientnet_lite0 --image-size 160

Each way has a process of its own, in turns. It computes forward passes and training steps on random images, on one
thread, and prints CPU time per image, the system's share of it, and the peak of memory. Cost: some two minutes.
"""

from __future__ import annotations

import multiprocessing
import resource
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import timm
import torch
import tyro
from conditions import commit, machine

from melanoma_dist import console
from melanoma_dist.train.device import configure_device

_WAYS = {"glibc's defaults": False, "as the program sets it": True}


@dataclass(frozen=True)
class Settings:
    """What to compute, and how often."""

    backbone: str = "tf_efficientnet_lite0"
    """timm's name."""
    image_size: int = 160
    """Side of the input in pixels."""
    batch_size: int = 32
    """Images per batch."""
    batches: int = 4
    """Batches of a measurement."""
    rounds: int = 3
    """Processes of each way."""


def main(settings: Settings) -> None:
    """Measure both ways in turns and print their medians."""
    rows: dict[str, list[tuple[float, ...]]] = {name: [] for name in _WAYS}
    for _ in range(settings.rounds):
        for name, keeps in _WAYS.items():
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                rows[name].append(pool.apply(measure, (settings, keeps)))
    console.info(f"{machine()}; commit {commit()}; {settings}")
    for name, measured in rows.items():
        forward, forward_system, step, step_system, peak = map(median, zip(*measured, strict=True))
        console.info(
            f"{name}: forward {forward:.1f} CPU-ms/image, {forward_system:.1f} of them in the system; "
            f"step {step:.1f}, {step_system:.1f} of them; peak {peak:.0f} MiB"
        )


def measure(settings: Settings, keeps: bool) -> tuple[float, ...]:
    """CPU-ms per image and the system's part of them, of a forward pass and of a step, and the peak in MiB."""
    torch.set_num_threads(1)
    if keeps:
        configure_device(None, threads=1)
    model = timm.create_model(settings.backbone).to(memory_format=torch.channels_last)
    images = torch.rand(settings.batch_size, 3, settings.image_size, settings.image_size)
    images = images.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters())

    def step() -> None:
        optimizer.zero_grad()
        model(images).square().mean().backward()
        optimizer.step()

    with torch.inference_mode():
        forward = _cost(lambda: model.eval()(images), settings)
    model.train()
    return *forward, *_cost(step, settings), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _cost(work: Callable[[], object], settings: Settings) -> tuple[float, float]:
    for _ in range(2):
        work()
    before = resource.getrusage(resource.RUSAGE_SELF)
    for _ in range(settings.batches):
        work()
    after = resource.getrusage(resource.RUSAGE_SELF)
    system, user = after.ru_stime - before.ru_stime, after.ru_utime - before.ru_utime
    share = 1000 / (settings.batches * settings.batch_size)
    return (system + user) * share, system * share


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))

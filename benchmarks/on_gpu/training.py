"""How fast a backbone trains: end to end, without the input, and as a plain loop does; each mode against without."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import timm
import torch
from torch.nn import functional as F

from melanoma_dist.config.hardware import HardwareConfig
from melanoma_dist.input.loader import TrainingBatch
from melanoma_dist.models.backbones import timm_name
from on_gpu.dali import DALI
from on_gpu.learning import (
    LABELS,
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
from on_gpu.settings import Row, Settings, skipped
from on_gpu.speed import Step, measured, wait


def training(backbone: str, settings: Settings) -> Iterator[Row]:
    """Images/s of three ways to train a backbone."""
    size = settings.size(backbone)
    remark = f"{size}x{size}, batch {settings.batch_size}"
    fastest_kernels()
    step = plain_timm(backbone, settings)
    yield measured("plain timm, images on the device", step, settings, remark)
    del step
    as_in_a_run(settings)
    trained = train_step(backbone, settings, HardwareConfig())
    batch = synthetic(size, settings)
    yield measured("TrainStep.step, images on the device", stepper(trained, lambda: batch), settings, remark)
    if not DALI:
        yield Row("end to end: skipped", "-", "DALI cannot be imported here")
        return
    batches = endless(loader(samples(settings), backbone, "dermoscopy", settings))
    remark += f", policy dermoscopy, {settings.world.threads} DALI threads"
    yield measured("end to end, DALI + TrainStep.step", stepper(trained, lambda: next(batches)), settings, remark)


def plain_timm(backbone: str, settings: Settings) -> Step:
    """The loop anyone would write: timm, bfloat16 autocast, channels-last, Adam; nothing of ours."""
    device, size = settings.device, settings.size(backbone)
    layout = torch.channels_last if device == "cuda" else torch.preserve_format
    model = timm.create_model(timm_name(backbone), num_classes=LABELS).to(device, memory_format=layout).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    images = torch.randn(settings.batch_size, 3, size, size, device=device).to(memory_format=layout)
    truth = torch.zeros(settings.batch_size, LABELS, device=device)

    def step() -> int:
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            logits = model(images)
        logits = logits[0] if isinstance(logits, tuple) else logits
        F.binary_cross_entropy_with_logits(logits.float(), truth).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return len(images)

    return step


def modes(settings: Settings) -> Iterator[Row]:
    """bfloat16, channels-last and deterministic kernels, each against without, on one backbone."""
    fastest = "bf16, channels-last, fastest kernels"
    ways = {
        "bf16, channels-last": HardwareConfig(),
        "bf16, contiguous": HardwareConfig(channels_last=False),
        "fp32, channels-last": HardwareConfig(amp=False),
        fastest: HardwareConfig(),
    }
    losses: dict[str, float] = {}
    for name, hardware in ways.items():
        as_in_a_run(settings)
        if name == fastest:
            fastest_kernels()
        batch = synthetic(settings.size(MAIN_BACKBONE), settings, contiguous=not hardware.channels_last)
        trained = train_step(MAIN_BACKBONE, settings, hardware)
        step = stepper(trained, partial(_same, batch))
        step()
        losses[name] = trained.running_loss()
        yield measured(f"{MAIN_BACKBONE}, {name}", step, settings, f"loss of the first step {losses[name]:.5f}")
        del trained, step
        torch.cuda.empty_cache()  # does nothing without a GPU
    low, full = losses["bf16, channels-last"], losses["fp32, channels-last"]
    yield Row(
        "loss, bf16 against fp32", f"{abs(low - full) / full:.2e}", "relative, first step, same weights and images"
    )


def _same(batch: TrainingBatch) -> TrainingBatch:
    return batch


def compiled(settings: Settings) -> Iterator[Row]:
    """torch.compile; without it is a row of ``modes``."""
    if settings.gpu is None:
        yield from skipped("compiling for a CPU takes minutes and shows nothing")
        return
    as_in_a_run(settings)
    batch = synthetic(settings.size(MAIN_BACKBONE), settings)
    trained = train_step(MAIN_BACKBONE, settings, HardwareConfig(compile=True))
    step = stepper(trained, partial(_same, batch))
    start = time.perf_counter()
    step()
    wait(torch.device(settings.device))
    remark = (
        f"first step {time.perf_counter() - start:.0f} s, loss {trained.running_loss():.5f}; without: the row in modes"
    )
    yield measured(f"{MAIN_BACKBONE}, compiled", step, settings, remark)

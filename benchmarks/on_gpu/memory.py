"""A GPU with too little memory for a batch at once: it is halved until it fits, and nothing else changes."""

from __future__ import annotations

import gc
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import torch

from melanoma_dist.config.hardware import HardwareConfig
from melanoma_dist.errors import OutOfMemory
from melanoma_dist.models.classifier import Classifier
from melanoma_dist.train.fallbacks import fall_back, read_fallbacks
from melanoma_dist.train.loop import train_unit
from melanoma_dist.train.unit import Unit
from on_gpu.learning import MAIN_BACKBONE, as_in_a_run, stepper, synthetic, train_step
from on_gpu.resume import compare_units
from on_gpu.settings import Row, Settings
from on_gpu.units import unit_in

_SHARE = 0.5  # of the memory that the whole batch would take


def memory(settings: Settings) -> Iterator[Row]:
    """Compare a unit in half the memory that it needs with one configured to the same micro-batches."""
    backbone = MAIN_BACKBONE if settings.gpu is not None else "test_resnet"
    needed = _needed(backbone, settings)
    with tempfile.TemporaryDirectory() as folder:
        start = time.monotonic()
        short = _unit(Path(folder, "short"), backbone, settings, 1)
        with _limited(_SHARE * needed, settings):
            tries = _train_as_the_command_does(short, settings)
        pieces = read_fallbacks(short.folder).accumulate
        yield Row(
            f"{backbone}, batch {settings.batch_size}, {_SHARE:.0%} of the memory that it takes",
            f"{pieces} micro-batches",
            f"the batch at once takes {needed / 2**30:.1f} GiB; {tries} tries, {time.monotonic() - start:.0f} s",
        )
        configured = _unit(Path(folder, "configured"), backbone, settings, max(pieces, 1))
        _train_as_the_command_does(configured, settings)
        yield Row(f"against --accumulate {pieces} from the start", compare_units(short, configured))


def _unit(run: Path, backbone: str, settings: Settings, accumulate: int) -> Unit:
    return unit_in(
        run, settings, model__backbone=backbone, data__folds=2, schedule__epochs=1, optimizer__lr=1e-4,
        input__batch_size=settings.batch_size, input__image_size=settings.size(backbone),
        optimizer__accumulate=accumulate,
    )  # fmt: skip


def _train_as_the_command_does(unit: Unit, settings: Settings) -> int:
    """Train the unit, again after every fallback. Returns the number of attempts."""
    tries = 1
    while not _trained(unit, settings):
        tries += 1
        _tidy()
    return tries


def _trained(unit: Unit, settings: Settings) -> bool:
    """Train a unit to its end. Returns False where it had to fall_back something."""
    try:
        train_unit(unit, as_in_a_run(settings), lambda event: None)
    except OutOfMemory as error:
        if fall_back(error, unit) is None:
            raise
        return False
    return True


def _needed(backbone: str, settings: Settings) -> float:
    """Bytes that PyTorch takes for steps on a whole batch; on the CPU, where nothing counts them, its images."""
    if settings.gpu is None:
        return settings.batch_size
    as_in_a_run(settings)
    _tidy()
    torch.cuda.reset_peak_memory_stats()
    _two_steps(backbone, settings)
    taken = torch.cuda.max_memory_reserved()
    _tidy()
    return taken


def _two_steps(backbone: str, settings: Settings) -> None:
    batch = synthetic(settings.size(backbone), settings)
    step = stepper(train_step(backbone, settings, HardwareConfig()), lambda: batch)
    step()
    step()


@contextmanager
def _limited(limit: float, settings: Settings) -> Iterator[None]:
    """PyTorch gets so many bytes of the GPU; the CPU, which has no such limit, so many images at once."""
    if settings.gpu is None:
        with mock.patch.object(Classifier, "forward", _for_at_most(limit)):
            yield
        return
    total = torch.cuda.get_device_properties(settings.gpu).total_memory
    torch.cuda.set_per_process_memory_fraction(limit / total)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
        _tidy()


def _for_at_most(images: float) -> object:
    forward = Classifier.forward

    def limited(model: Classifier, batch: torch.Tensor) -> torch.Tensor:
        if len(batch) > images:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return forward(model, batch)

    return limited


def _tidy() -> None:
    """Give back what a failed try held."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()

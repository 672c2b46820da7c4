"""The pixels of the GPU's graph against those of the CPU's; against its own, again and again; and how fast it is."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from contextlib import nullcontext

import numpy as np
import numpy.typing as npt
import torch

from melanoma_dist.config.run import Augmentation
from melanoma_dist.input import stream
from melanoma_dist.input.graph import Graph, GraphInput, InputFormat, evaluation_input, training_input
from melanoma_dist.input.loader import TrainingBatch
from on_gpu.decoder import no_jpeg_engine
from on_gpu.learning import MAIN_BACKBONE, endless, frame, loader, samples
from on_gpu.settings import Row, Settings, claim
from on_gpu.speed import images_per_s

_MEAN, _SHARE = 0.5, 0.01  # grey levels, and the share of values that differ by more than 1.5 of them: at most
_AGAIN = 3
_BATCHES = 4


def pixels(settings: Settings) -> Iterator[Row]:
    """The same images through the graph on the CPU and on the GPU, in grey levels of 255; then twice on the GPU."""
    images, square = samples(settings), frame(MAIN_BACKBONE, settings)
    encoded = images.encoded(np.arange(min(settings.batch_size, len(images.rows))))
    for policy in (None, *stream.POLICIES):
        inputs = _graph_input(encoded, policy, square)
        rotate = policy is not None and stream.POLICIES[policy].rotation > 0
        ours, theirs = (
            _once(inputs, square, settings.world.threads, gpu, rotate, images.largest) for gpu in (None, settings.gpu)
        )
        levels = (ours - theirs).abs() * 255 * torch.tensor(square.std).view(1, 3, 1, 1)
        share = (levels > 1.5).double().mean().item()
        value = f"max {levels.max().item():.2f}, mean {levels.mean().item():.3f} levels"
        close = levels.mean().item() <= _MEAN and share <= _SHARE
        yield claim(close, f"GPU against CPU, {policy or 'evaluation'}", value, f"{share:.3%} differ by more than 1.5")
    yield from _again(settings)


def input_speed(settings: Settings) -> Iterator[Row]:
    """Images/s of the graph alone."""
    images = samples(settings)
    cases: list[tuple[Augmentation, bool]] = [("light", False), ("dermoscopy", False), ("dermoscopy", True)]
    for policy, without in cases:
        with no_jpeg_engine() if without else nullcontext():
            batches = endless(loader(images, MAIN_BACKBONE, policy, settings))
            speed = images_per_s(lambda batches=batches: len(next(batches).images), settings)  # type: ignore[misc]
        how = "without the JPEG engine" if without else "as the program asks"
        yield Row(f"graph alone, {policy}, {how}", f"{speed:.0f} images/s", f"{settings.world.threads} DALI threads")


def _again(settings: Settings) -> Iterator[Row]:
    """The same batches, decoded again: a run can only end alike if every bit is."""
    images = samples(settings)
    for how, without in {"as the program asks": False, "without the JPEG engine": True}.items():
        with no_jpeg_engine() if without else nullcontext():
            epochs = [_hashes(loader(images, MAIN_BACKBONE, "dermoscopy", settings).epoch(0)) for _ in range(_AGAIN)]
        different = sum(len(set(hashes)) > 1 for hashes in zip(*epochs, strict=True))
        value = f"{different} of {len(epochs[0])} batches differ"
        yield claim(not different, f"{_AGAIN} times the same batches, {how}", value)


def _hashes(batches: Iterator[TrainingBatch]) -> list[str]:
    first = itertools.islice(batches, _BATCHES)
    return [hashlib.sha256(batch.images.cpu().contiguous().numpy().tobytes()).hexdigest() for batch in first]


def _graph_input(encoded: list[npt.NDArray[np.uint8]], policy: Augmentation | None, square: InputFormat) -> GraphInput:
    if policy is None:
        return evaluation_input(encoded, square)
    return training_input(encoded, stream.parameters(stream.POLICIES[policy], 0, 0, 0, len(encoded)), square)


def _once(
    source: GraphInput, square: InputFormat, threads: int, gpu: int | None, rotate: bool, largest: tuple[int, int]
) -> torch.Tensor:
    """Run one batch through a new graph, and return it on the CPU."""
    graph = Graph(
        lambda step: source if step == 0 else None, square, len(source.encoded), threads, gpu, rotate, largest
    )
    return next(iter(graph)).float().cpu().contiguous()

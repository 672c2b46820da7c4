"""Measures the CPU cost of an augmented training image with its lesion mask: our graph against torchvision, in one run.

    python benchmarks/segmentation_input.py DATA

DATA is a prepared data set with masks; its files stay in memory. Each way makes the same number of batches of
normalised float32 images and masks of 0 to 1: decode both, cut the same random crop, resize both with antialiasing,
flip, rotate where the policy does so, and vary the colours of the image alone. The ways take turns, round after round,
and medians are compared:

- graph, image: the images without masks, as a classifier takes them;
- graph, image and mask: what a segmenter takes;
- torchvision v2: ``tv_tensors.Image`` and ``tv_tensors.Mask``. Its own masks are cut by nearest neighbours; the row
  "smooth mask" gives the mask as a second image, so that it is antialiased as ours are.

CPU-ms is user and system time of the process and its workers. Cost: about 6 minutes on 2 CPU cores.
"""

from __future__ import annotations

import io
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import tyro
from conditions import commit, machine, run_benchmark
from input import Way, passes, time_in_turns
from input_others import Run, augmentations
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from melanoma_dist import console
from melanoma_dist.config.run import Augmentation
from melanoma_dist.data.manifest import load_dataset
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.input import stream
from melanoma_dist.input.graph import Graph, GraphInput, InputFormat, training_input
from melanoma_dist.input.stream import Policy

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_PLAIN, _MASKED = "graph, image", "graph, image and mask"
Pair = tuple[bytes, bytes]
"""JPEG and PNG of an image and its mask."""


@dataclass(frozen=True)
class Settings:
    """Settings of the measurement."""

    data: Annotated[Path, tyro.conf.Positional]
    """Prepared data set with masks."""
    images: int = 512
    """Images per way and round, 32 to 100000; with fewer in the data set they are repeated."""
    size: int = 256
    """Side of the square input in pixels, 32 to 1024."""
    rounds: int = 5
    """Rounds, 1 to 100."""
    batch_size: int = 32
    """Images in a batch, 1 to 1024."""
    policies: tuple[Augmentation, ...] = ("light", "dermoscopy")
    """Policies of augmentation: none, light, dermoscopy."""

    def __post_init__(self) -> None:
        limits = {"images": (32, 100_000), "size": (32, 1024), "rounds": (1, 100), "batch_size": (1, 1024)}
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise ConfigError.of(name, getattr(self, name), f"must be {low} to {high}")


def main() -> None:
    """Time every way and print a table for each policy."""
    settings = tyro.cli(Settings, description=__doc__)
    torch.set_num_threads(1)  # spinning threads of torch would count against torchvision
    pairs = read_pairs(settings.data, settings.images)
    console.info(
        f"{len(pairs)} images with masks, batches of {settings.batch_size} to {settings.size}x{settings.size}, "
        f"{settings.rounds} rounds of {settings.images} images; {machine()}; torch {torch.__version__}; "
        f"commit {commit()}"
    )
    for policy in settings.policies:
        timings = time_in_turns(list(_ways(pairs, stream.POLICIES[policy], settings)), settings.rounds)
        cpu = {name: statistics.median(timing.cpu_ms) for name, timing in timings.items()}
        rows = [
            (name, f"{cpu[name]:.2f} ({min(timing.cpu_ms):.2f} to {max(timing.cpu_ms):.2f})",
             f"{statistics.median(timing.images_per_s):.0f}", f"{cpu[name] / cpu[_MASKED]:.2f}")
            for name, timing in timings.items()
        ]  # fmt: skip
        console.table(f"Policy {policy}", ("way", "CPU-ms/image", "images/s", "times the graph with masks"), rows)


def read_pairs(folder: Path, count: int) -> list[Pair]:
    """Up to ``count`` images with masks, spread over the data set. Raises DataError for none."""
    dataset = load_dataset(folder)
    reader, masked = ShardReader(dataset), np.flatnonzero(dataset.manifest["mask_offset"] >= 0)
    if not len(masked):
        raise DataError(f"{folder}: no image has a mask.")
    rows = masked[np.linspace(0, len(masked) - 1, min(count, len(masked))).astype(int)]
    return [(reader.jpeg(int(row)).tobytes(), reader.mask(int(row)) or b"") for row in rows]


def _ways(pairs: list[Pair], policy: Policy, settings: Settings) -> Iterator[Way]:
    square, batches = InputFormat(settings.size, _MEAN, _STD), max(1, settings.images // settings.batch_size)
    yield Way(_PLAIN, _graph(pairs, policy, square, settings.batch_size, batches, masks=False))
    yield Way(_MASKED, _graph(pairs, policy, square, settings.batch_size, batches, masks=True))
    for smooth in (False, True):
        for workers in (0, 2):
            name = f"torchvision, {'smooth mask' if smooth else 'tv_tensors.Mask'}, {workers} workers"
            count = batches * settings.batch_size
            yield Way(name, _torchvision(pairs, policy, square, settings.batch_size, count, smooth, workers))


def _graph(pairs: list[Pair], policy: Policy, square: InputFormat, batch_size: int, batches: int, masks: bool) -> Run:
    """The graph on one thread, fed as the training loader feeds it."""
    encoded = [[np.frombuffer(part, dtype=np.uint8) for part in pair] for pair in pairs]

    def feed(step: int) -> GraphInput | None:
        if step >= batches:
            return None
        start = step * batch_size
        chosen = [encoded[at % len(encoded)] for at in range(start, start + batch_size)]
        drawn = stream.parameters(policy, 0, 0, start, batch_size)
        both = ([image for image, _ in chosen], [mask for _, mask in chosen] if masks else None)
        return training_input(both[0], drawn, square, both[1])

    return passes(Graph(feed, square, batch_size, 1, rotate=policy.rotation > 0, masks=masks))


class Pairs(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """Images and masks through PIL and torchvision's transforms (v2)."""

    def __init__(self, pairs: list[Pair], count: int, policy: Policy, square: InputFormat, smooth: bool) -> None:
        self._pairs, self._count, self._smooth = pairs, count, smooth
        move, colour = augmentations(policy, square.size)
        self._move, self._colour = v2.Compose(move), v2.Compose([v2.Identity(), *colour])
        scaled = {tv_tensors.Image: torch.float32, tv_tensors.Mask: torch.float32, "others": None}
        self._scale = v2.ToDtype(scaled, scale=True)
        self._normalise = v2.Normalize(square.mean, square.std)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        jpeg, png = self._pairs[index % len(self._pairs)]
        with Image.open(io.BytesIO(jpeg)) as file:
            image = tv_tensors.Image(v2.functional.pil_to_tensor(file.convert("RGB")))
        with Image.open(io.BytesIO(png)) as file:
            pixels = v2.functional.pil_to_tensor(file.convert("L"))
        mask = tv_tensors.Image(pixels) if self._smooth else tv_tensors.Mask(pixels)
        image, mask = self._move(image, mask)
        mask = self._scale(mask) if self._smooth else self._scale(mask) / 255  # masks keep their values
        return self._normalise(self._scale(self._colour(image))), mask


def _torchvision(
    pairs: list[Pair], policy: Policy, square: InputFormat, batch_size: int, count: int, smooth: bool, workers: int
) -> Run:
    # Spawned, because DALI's threads would not survive a fork; persistent, so that their start is not timed.
    context, persistent = ("spawn", True) if workers else (None, False)
    loader = DataLoader(
        Pairs(pairs, count, policy, square, smooth), batch_size, num_workers=workers,
        multiprocessing_context=context, persistent_workers=persistent,
    )  # fmt: skip
    return lambda: sum(len(images) for images, _ in loader)


if __name__ == "__main__":
    run_benchmark(main)

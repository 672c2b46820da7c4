"""The two ways of `predict.py`: the program, and a plain loop of timm and Pillow."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated
from unittest import mock

import numpy as np
import torch
import tyro
from conditions import commit, machine, real_images
from PIL import Image
from torch import nn
from torchvision.transforms import v2

from melanoma_dist import console
from melanoma_dist.app.decoders import Decoders
from melanoma_dist.app.predictor import Predictor, open_known_images
from melanoma_dist.app.scoring import chunk_size, chunks
from melanoma_dist.inference.trained_run import open_trained_run
from melanoma_dist.train import device
from melanoma_dist.train.fold_data import input_format_of


@dataclass(frozen=True)
class Settings:
    """What to predict, and how often."""

    run: Annotated[Path, tyro.conf.Positional]
    """A finished run."""
    images: int = 400
    """Photographs per round."""
    rounds: int = 3
    """Rounds of each way."""
    batch_size: int = 32
    """Batch of both ways."""


def main(description: str | None) -> None:
    """Time both ways and print images per second and their ratio."""
    settings = tyro.cli(Settings, description=description)
    files = sorted((real_images() / "native").glob("*.jpg"))
    files = (files * -(-settings.images // len(files)))[: settings.images]
    seconds: dict[str, list[float]] = {"plain loop": [], "predict": []}
    for _ in range(settings.rounds):
        for name, spent in seconds.items():
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                turn, probability = pool.apply(timed, (name, settings, files))
            spent.append(turn)
            console.info(f"{name}: {len(files) / turn:.1f} images/s, mean {probability:.4f}")
    ratios = [loop / program for loop, program in zip(*seconds.values(), strict=True)]
    console.info(f"{machine()}; commit {commit()}; {len(files)} photographs")
    console.info(f"predict / plain loop: {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def timed(name: str, settings: Settings, files: list[Path]) -> tuple[float, float]:
    """Seconds of a turn, without the loading of the run, and the mean probability."""
    run = open_trained_run(settings.run)
    way = {"plain loop": plain, "predict": ours}[name]
    with nullcontext() if way is ours else mock.patch.object(device, "_keep_freed_memory"):
        predictor = Predictor.load(run, open_known_images(run, None), 0, None, 1)
    begin = time.perf_counter()
    probabilities = list(way(predictor, files, settings.batch_size))
    return time.perf_counter() - begin, float(np.mean(probabilities))


def ours(predictor: Predictor, files: list[Path], batch_size: int) -> Iterator[float]:
    """Probability of the first label of each file, by what `launch.py predict` calls."""
    size, cores = chunk_size(predictor.ensemble, batch_size), len(os.sched_getaffinity(0))
    with Decoders(cores, predictor.run.image_size, seconds=300) as decoders:
        for chunk in chunks(decoders.inspect_files(files), size):
            for image in predictor.predict(chunk, batch_size):
                yield float(image.scores.probability[0]) if image.scores else np.nan


@torch.inference_mode()
def plain(predictor: Predictor, files: list[Path], batch_size: int) -> Iterator[float]:
    """Probability, not calibrated, of the first label of each file."""
    frame = input_format_of(predictor.ensemble.units[0])
    prepare = v2.Compose(
        [v2.Resize((frame.size, frame.size), antialias=True), v2.ToImage(), v2.ToDtype(torch.float32, scale=True),
         v2.Normalize(frame.mean, frame.std)]
    )  # fmt: skip
    models: list[nn.Module] = list(predictor.ensemble.folds)
    for start in range(0, len(files), batch_size):
        batch = torch.stack([prepare(_opened(file)) for file in files[start : start + batch_size]])
        probabilities = torch.stack([torch.sigmoid(model(batch)) for model in models]).mean(dim=0)
        yield from probabilities[:, 0].tolist()


def _opened(file: Path) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("RGB")

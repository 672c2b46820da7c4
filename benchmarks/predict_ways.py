"""The two ways of `predict.py`: the program, and a plain loop of timm and Pillow."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated

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
    run = open_trained_run(settings.run)
    predictor = Predictor.load(run, open_known_images(run, None), 0, None, 1)
    ways: dict[str, Callable[[], list[float]]] = {
        "plain loop": lambda: list(plain(predictor, files, settings.batch_size)),
        "predict": lambda: list(ours(predictor, files, settings.batch_size)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(settings.rounds):
        for name, way in ways.items():
            begin = time.perf_counter()
            probabilities = way()
            seconds[name].append(time.perf_counter() - begin)
            console.info(f"{name}: {len(files) / seconds[name][-1]:.1f} images/s, mean {np.mean(probabilities):.4f}")
    ratios = [loop / program for loop, program in zip(*seconds.values(), strict=True)]
    console.info(f"{machine()}; commit {commit()}; {len(files)} photographs")
    console.info(f"predict / plain loop: {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


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

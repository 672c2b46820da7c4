"""The two ways of `predict.py`: the program, and a plain loop of timm and Pillow."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro
from conditions import commit, machine, real_images
from PIL import Image

from melanoma_dist import console
from melanoma_dist.cli import set_up_libraries

if TYPE_CHECKING:  # a process loads PyTorch after it has made its settings
    from melanoma_dist.app.predictor import Predictor

WAYS = ("plain loop", "predict")


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
    megapixels: float = 0
    """Enlarge the photographs to this size, as a newer camera takes them. 0: as they are."""


def main(description: str | None) -> None:
    """Time both ways and print images per second and their ratio."""
    settings = tyro.cli(Settings, description=description)
    with TemporaryDirectory() as folder:
        files = sorted((real_images() / "native").glob("*.jpg"))
        if settings.megapixels:
            files = [_enlarged(file, settings.megapixels, Path(folder)) for file in files]
        _compare(settings, (files * -(-settings.images // len(files)))[: settings.images])


def _enlarged(file: Path, megapixels: float, folder: Path) -> Path:
    image = _opened(file)
    scale = (1e6 * megapixels / (image.width * image.height)) ** 0.5
    larger = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    larger.save(folder / file.name, quality=92)
    return folder / file.name


def _compare(settings: Settings, files: list[Path]) -> None:
    spawn, ratios = multiprocessing.get_context("spawn"), []
    for _ in range(settings.rounds):
        rates = []
        for way in WAYS:
            with spawn.Pool(1) as pool:
                seconds, mean = pool.apply(_timed, (way, settings, files))
            rates.append(len(files) / seconds)
            console.info(f"{way}: {rates[-1]:.1f} images/s, mean {mean:.4f}")
        ratios.append(rates[1] / rates[0])
    console.info(f"{machine()}; commit {commit()}; {len(files)} photographs")
    console.info(f"predict / plain loop: {median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def _timed(way: str, settings: Settings, files: list[Path]) -> tuple[float, float]:
    """Seconds of a way, and the mean of its probabilities."""
    if way == "predict":
        set_up_libraries()
    from melanoma_dist.app.predictor import Predictor, open_known_images
    from melanoma_dist.inference.trained_run import open_trained_run

    run = open_trained_run(settings.run)
    predictor = Predictor.load(run, open_known_images(run, None), 0, None, 1)
    predict = ours if way == "predict" else plain
    list(predict(predictor, files[: settings.batch_size], settings.batch_size))
    begin = time.perf_counter()
    probabilities = list(predict(predictor, files, settings.batch_size))
    return time.perf_counter() - begin, float(np.mean(probabilities))


def ours(predictor: Predictor, files: list[Path], batch_size: int) -> Iterator[float]:
    """Probability of the first label of each file, by what `launch.py predict` calls."""
    from melanoma_dist.app.decoders import Decoders
    from melanoma_dist.app.scoring import chunk_size, chunks

    size, cores = chunk_size(predictor.ensemble, batch_size), len(os.sched_getaffinity(0))
    with Decoders(cores, predictor.run.image_size, seconds=300) as decoders:
        for chunk in chunks(decoders.inspect_files(files), size):
            for image in predictor.predict(chunk, batch_size):
                yield float(image.scores.probability[0]) if image.scores else np.nan


def plain(predictor: Predictor, files: list[Path], batch_size: int) -> Iterator[float]:
    """Probability, not calibrated, of the first label of each file."""
    import torch
    from torchvision.transforms import v2

    from melanoma_dist.train.fold_data import input_format_of

    frame = input_format_of(predictor.ensemble.units[0])
    prepare = v2.Compose(
        [v2.Resize((frame.size, frame.size), antialias=True), v2.ToImage(), v2.ToDtype(torch.float32, scale=True),
         v2.Normalize(frame.mean, frame.std)]
    )  # fmt: skip
    with torch.inference_mode():
        for start in range(0, len(files), batch_size):
            batch = torch.stack([prepare(_opened(file)) for file in files[start : start + batch_size]])
            folds = [torch.sigmoid(model(batch)) for model in predictor.ensemble.folds]
            yield from torch.stack(folds).mean(dim=0)[:, 0].tolist()


def _opened(file: Path) -> Image.Image:
    with Image.open(file) as image:
        return image.convert("RGB")

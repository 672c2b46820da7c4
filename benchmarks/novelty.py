"""How many real unseen images, and how many that are no dermoscopy, does a run call unlike its training images?

    python benchmarks/novelty.py runs/NAME --holdout 2017-validation --images HAM10000/

Prints the share that is called so for the holdout of the run's own data set, for folders of other dermoscopic images,
and for what is none: noise, smooth colours, fur, plain skin, photographs (of scikit-learn and matplotlib) and
screenshots (of this documentation). Labels are not read.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import tyro
from conditions import commit, machine, run_benchmark
from PIL import Image
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_sample_images
from tyro.conf import Positional

import melanoma_dist
from melanoma_dist import console
from melanoma_dist.errors import ConfigError
from melanoma_dist.inference.images import Images
from melanoma_dist.inference.photographs import Photographs
from melanoma_dist.inference.trained_run import TrainedRun
from melanoma_dist.storage.images import SUFFIXES

Pixels = npt.NDArray[np.uint8]
_SIDE = 256
_EACH = 10
_SCREENSHOTS = Path(__file__).parents[1] / "docs" / "images"


@dataclass(frozen=True)
class Settings:
    """What to look at."""

    run: Positional[Path]
    """Folder of a finished run."""
    holdout: str | None = None
    """Holdout of its data set, such as 2017-validation."""
    images: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FOLDER")] = ()
    """Folders of other dermoscopic images; at most 100 of each are read."""
    gpus: int = 0
    """GPUs; 0 for the CPU."""


def main() -> None:
    """Print a row per kind of image."""
    settings = tyro.cli(Settings, description=__doc__)
    console.info(f"{machine()}; commit {commit()}; {settings}")
    run = melanoma_dist.load_run(settings.run)
    ensemble = run.ensemble(settings.gpus)
    if (features := ensemble.run_features) is None:
        raise ConfigError(f"{settings.run}: has no features. Train it again with this version.")
    rows = []
    for kind, images in _kinds(run, settings):
        novelty = features.novelty(ensemble.predict(images, tta=1, features=True).features)
        rows.append([kind, *_row(novelty)])
    console.table("Novelty", ["images", "n", "unlike the training images", "least", "median", "most"], rows)


def _row(novelty: npt.NDArray[np.float32]) -> list[str]:
    out = int((novelty >= 1).sum())
    spread = (novelty.min(), np.median(novelty), novelty.max())
    return [str(len(novelty)), f"{out} ({out / len(novelty):.1%})", *(f"{value:.2f}" for value in spread)]


def _kinds(run: TrainedRun, settings: Settings) -> Iterator[tuple[str, Images | Photographs]]:
    if settings.holdout:
        dataset = run.dataset(None)
        yield settings.holdout, Images.of(dataset, (dataset.manifest["split"] == settings.holdout).to_numpy())
    for folder in settings.images:
        files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
        yield folder.name, Photographs.prepare(files[:: -(-len(files) // 100)], run.image_size)
    rng = np.random.default_rng(0)
    others: dict[str, list[Image.Image]] = {
        "noise": [_noise(rng) for _ in range(_EACH)],
        "smooth colours": [_smooth(rng, side) for side in (4, 8, 16, 32, 64)],
        "fur": [_fur(rng) for _ in range(_EACH)],
        "plain skin": [_skin(rng) for _ in range(_EACH)],
        "photographs": [_crop(rng, picture) for picture in _photographs() for _ in range(_EACH)],
        "screenshots": [Image.open(path) for path in sorted(_SCREENSHOTS.glob("*.png"))],
    }
    for kind, pictures in others.items():
        yield kind, Photographs.prepare([_jpeg(picture) for picture in pictures], run.image_size)


def _noise(rng: np.random.Generator) -> Image.Image:
    return Image.fromarray(rng.integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8))


def _smooth(rng: np.random.Generator, side: int) -> Image.Image:
    small = np.clip(rng.normal(128, 60, (side, side, 3)), 0, 255).astype(np.uint8)
    return Image.fromarray(small).resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)


def _fur(rng: np.random.Generator) -> Image.Image:
    """Hair in one direction, in the colours of a cat."""
    hair = gaussian_filter(rng.normal(size=(_SIDE, _SIDE)), (12, 0.8))
    hair = (hair - hair.min()) / np.ptp(hair)
    return Image.fromarray((hair[..., None] * (200, 150, 90) + 30).astype(np.uint8))


def _skin(rng: np.random.Generator) -> Image.Image:
    """The colour of skin, with the noise of a camera and no lesion."""
    return Image.fromarray(np.clip(rng.normal((220, 170, 150), 4, (_SIDE, _SIDE, 3)), 0, 255).astype(np.uint8))


def _photographs() -> list[Image.Image]:
    """A temple, a flower and a woman in uniform."""
    hopper = Path(mpl.get_data_path()) / "sample_data" / "grace_hopper.jpg"
    return [*map(Image.fromarray, load_sample_images().images), Image.open(hopper)]


def _crop(rng: np.random.Generator, picture: Image.Image) -> Image.Image:
    side = int(min(picture.size) * rng.uniform(0.5, 1))
    left, top = (int(rng.uniform(0, length - side)) for length in picture.size)
    return picture.crop((left, top, left + side, top + side))


def _jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


if __name__ == "__main__":
    run_benchmark(main)

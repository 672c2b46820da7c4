"""Count the copies of training images that `predict` recognises, by the way in which they were made.

    MELANOMA_DIST_ISIC=... python benchmarks/copies.py

Prepares images of ISIC 2017 as a data set, makes copies of some of them in several ways, and looks for each copy in the
data set. Images of the same collection that the data set does not have must not be recognised.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import tyro
from conditions import commit, machine, real_images, run_benchmark
from PIL import Image, ImageEnhance

from melanoma_dist import console
from melanoma_dist.app.known_images import CopyIndex
from melanoma_dist.data.photo import PhotoJob, prepare_photo
from melanoma_dist.data.prepare import Request, prepare
from melanoma_dist.inference.images import Images

_TABLE = "2017/ISIC-2017_Training_Part3_GroundTruth.csv"
_FOLDER = "2017/ISIC-2017_Training_Data"
_SIZE = 512  # of the data set


@dataclass(frozen=True)
class Sizes:
    """Sizes of the benchmark."""

    images: int = 300
    """Images of the data set."""
    copies: int = 60
    """Of them, copied in each way."""
    others: int = 100
    """Images that the data set does not have."""
    seed: int = 0
    """Of the choice of images."""


@dataclass(frozen=True)
class Way:
    """A way to make a copy."""

    name: str
    suffix: str
    edit: Callable[[Image.Image], Image.Image]
    quality: int = 90


WAYS = (
    Way("JPEG of quality 50", ".jpg", lambda image: image, 50),
    Way("twice the size, PNG", ".png", lambda image: _scaled(image, 2)),
    Way("half the size, WebP of quality 80", ".webp", lambda image: _scaled(image, 0.5), 80),
    Way("brighter by 20 %, more colour", ".jpg", lambda image: _recoloured(image)),
    Way("4 % cut off at each side", ".jpg", lambda image: _cut(image, 0.04)),
    Way("mirrored", ".jpg", lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
)


def main() -> None:
    sizes = tyro.cli(Sizes, description=__doc__)
    console.info(f"{machine()}; commit {commit()}")
    isic = real_images()
    table = pd.read_csv(isic / _TABLE).sample(sizes.images + sizes.others, random_state=sizes.seed)
    with tempfile.TemporaryDirectory() as folder:
        known = data_set(isic, table[: sizes.images], Path(folder))
        names = table["image_id"].tolist()
        rows = [row(way, isic, names[: sizes.copies], known, Path(folder)) for way in WAYS]
        others = [isic / _FOLDER / f"{name}.jpg" for name in names[sizes.images :]]
        rows.append(["another image", f"{len(recognised(others, known))} of {len(others)}"])
    console.table("Images that are recognised", ["copy", "recognised"], rows)


def data_set(isic: Path, table: pd.DataFrame, folder: Path) -> Images:
    raw = folder / "raw"
    (raw / _FOLDER).mkdir(parents=True)
    table.to_csv(raw / _TABLE, index=False)
    for name in table["image_id"]:
        (raw / _FOLDER / f"{name}.jpg").symlink_to(isic / _FOLDER / f"{name}.jpg")
    data = prepare(Request(raw, ("2017",), size=_SIZE), folder / "prepared")
    return Images.of(data, np.ones(len(data.manifest), dtype=bool))


def row(way: Way, isic: Path, names: list[str], known: Images, folder: Path) -> list[str]:
    copies = []
    for at, name in enumerate(names):
        copies.append(folder / f"copy-{at}{way.suffix}")
        with Image.open(isic / _FOLDER / f"{name}.jpg") as image:
            way.edit(image.convert("RGB")).save(copies[-1], quality=way.quality)
    matches = recognised(copies, known)
    right = [at for at, name in matches.items() if name == names[at]]
    wrong = f", {len(matches) - len(right)} as another image" if len(matches) > len(right) else ""
    return [way.name, f"{len(right)} of {len(names)}{wrong}"]


def recognised(files: Sequence[Path], known: Images) -> dict[int, str]:
    index = CopyIndex(known)
    photos = (prepare_photo(PhotoJob(path.name, (path,), None, _SIZE)) for path in files)
    return {at: image.image_id for at, photo in enumerate(photos) if (image := index.find(photo))}


def _scaled(image: Image.Image, scale: float) -> Image.Image:
    return image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)


def _recoloured(image: Image.Image) -> Image.Image:
    return ImageEnhance.Color(ImageEnhance.Brightness(image).enhance(1.2)).enhance(1.3)


def _cut(image: Image.Image, share: float) -> Image.Image:
    x, y = round(share * image.width), round(share * image.height)
    return image.crop((x, y, image.width - x, image.height - y))


if __name__ == "__main__":
    run_benchmark(main)

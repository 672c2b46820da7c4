"""Choose the blur from which `predict` calls an image blurred, on real images, and test it on others.

    MELANOMA_DIST_ISIC=... python benchmarks/blur.py

The threshold is the 99th percentile of real images, prepared as `predict` prepares them. The test takes other images,
as they are and after Gaussian blurs of three widths, and prints the share that the program's threshold calls blurred.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from conditions import commit, machine, real_images, run_benchmark
from PIL import Image, ImageFilter

from melanoma_dist import console
from melanoma_dist.app.inspection import BLURRED, inspect_bytes

_CHOOSING = ("2018/ISIC2018_Task1-2_Training_Input", "2017/ISIC-2017_Training_Data")
_TESTING = (*_CHOOSING, "2018/ISIC2018_Task3_Training_Input", "native")
_WIDTHS = (0.0, 0.5, 1.0, 2.0)  # standard deviation of the blur, percent of the shorter side


@dataclass(frozen=True)
class Sizes:
    """Sizes of the benchmark."""

    choose: int = 500
    """Images of each folder that choose the threshold."""
    test: int = 100
    """Images of each folder that test it."""
    seed: int = 0
    """Of the choice of images."""


def main() -> None:
    sizes = tyro.cli(Sizes, description=__doc__)
    console.info(f"{machine()}; commit {commit()}")
    place = real_images()
    tested = {folder: shuffled(place / folder, sizes.seed)[: sizes.test] for folder in _TESTING}
    ids = {path.stem for paths in tested.values() for path in paths}  # two folders may hold one photograph
    rest = [[path for path in shuffled(place / folder, sizes.seed) if path.stem not in ids] for folder in _CHOOSING]
    files = [path for paths in rest for path in paths[: sizes.choose]]
    blurs = [blur_of(path) for path in console.progress(files, len(files), "choosing")]
    console.info(f"99th percentile of {len(files)} images: {np.quantile(blurs, 0.99):.4f}; the program has {BLURRED}.")
    header = ["share called blurred", "images", *(f"sigma {width} %" for width in _WIDTHS)]
    console.table("On other images", header, list(rows(tested)))


def shuffled(folder: Path, seed: int) -> list[Path]:
    files = sorted(folder.glob("*.jpg"))
    return [files[at] for at in np.random.default_rng(seed).permutation(len(files))]


def blur_of(path: Path) -> float:
    return inspect_bytes(path.name, path.read_bytes(), 512).blur


def rows(tested: Mapping[str, Sequence[Path]]) -> Iterator[list[str]]:
    for folder, files in tested.items():
        blurs = np.array([list(blurred(path)) for path in console.progress(files, len(files), folder)])
        yield [folder, str(len(files)), *(f"{share:.1%}" for share in (blurs >= BLURRED).mean(axis=0))]


def blurred(path: Path) -> Iterator[float]:
    """The blur of an image after a blur of each width."""
    with Image.open(path) as image, tempfile.TemporaryDirectory() as folder:
        pixels = image.convert("RGB")
        pixels.thumbnail((1024, 1024))  # the widths are relative, and large files take seconds
        for width in _WIDTHS:
            copy = pixels.filter(ImageFilter.GaussianBlur(width / 100 * min(pixels.size)))
            copy.save(Path(folder) / "image.png", compress_level=1)
            yield blur_of(Path(folder) / "image.png")


if __name__ == "__main__":
    run_benchmark(main)

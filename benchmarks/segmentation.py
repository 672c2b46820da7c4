"""Floors of lesion segmentation, and a segmentation run beside them: the same images, the same scores.

    python benchmarks/segmentation.py DATA [--run RUN] [--images 300]

DATA is a prepared data set with masks. Without a model, a mask can be guessed in two ways:

- ellipse: one ellipse in the centre of every image. Its axes are those with the best mean Jaccard on these very images,
  which flatters it.
- otsu: the pixels below Otsu's threshold (1979) of the smoothed blue channel, opened and closed; of their regions, the
  one with the most pixels near the centre, its holes filled.

With --run, the out-of-fold scores of a finished segmentation run on the same images are a further row. Intervals are
over lesions.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import numpy.typing as npt
import pandas as pd
import tyro
from conditions import commit, machine, run_benchmark
from PIL import Image
from scipy import ndimage

from melanoma_dist import console
from melanoma_dist.artifacts.predictions import read_predictions
from melanoma_dist.data.manifest import Dataset, load_dataset
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.inference.lesion_masks import largest_region
from melanoma_dist.metrics.intervals import Interval, Undefined
from melanoma_dist.metrics.segmentation import FAILURES, METRICS, MaskScores, mean_scores, overlap, score_mask

Mask = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.uint8]
_AXES = np.arange(0.3, 1.01, 0.1)  # of the ellipse, in shares of the image's sides
_SMALL = 64  # pixels a side, at which the ellipse's axes are chosen
_SMOOTH = 0.01  # standard deviation of the blur, in shares of the diagonal
_MORPHOLOGY = 0.01  # radius of opening and closing, likewise


@dataclass(frozen=True)
class Sizes:
    """What is compared."""

    data: Annotated[Path, tyro.conf.Positional]
    """Prepared data set with masks."""
    run: Path | None = None
    """A finished segmentation run on it."""
    images: int | None = None
    """Images, chosen at random. Default: all with masks."""
    seed: int = 0
    """Of the choice of images."""


def main() -> None:
    sizes = tyro.cli(Sizes, description=__doc__)
    console.info(f"{machine()}; commit {commit()}")
    dataset = load_dataset(sizes.data)
    rows = chosen(dataset, sizes)
    group = dataset.manifest["group"].to_numpy()[rows]
    reader = ShardReader(dataset)
    axes = best_axes([small(truth_of(reader, row)) for row in rows])
    console.info(f"{len(rows)} images of {len(set(group))} lesions; ellipse of {axes[0]:.1f} x {axes[1]:.1f}")
    ways: dict[str, Callable[[Pixels], Mask]] = {
        f"ellipse {axes[0]:.1f} x {axes[1]:.1f}": lambda pixels: ellipse(pixels.shape[:2], axes),
        "otsu": otsu_mask,
    }
    scores = {name: score(reader, rows, way, name) for name, way in ways.items()}
    if sizes.run is not None:
        scores[f"run {sizes.run.name}"] = scores_out_of_fold(sizes.run, dataset.manifest["image_id"].iloc[rows])
    means = [mean_scores(each, group) for each in scores.values()]
    lines = [[name, *(cell(each[name]) for each in means)] for name in (*METRICS, FAILURES)]
    console.table("Mean over images (95 % interval over lesions)", ["", *scores], lines)


def chosen(dataset: Dataset, sizes: Sizes) -> list[int]:
    """Rows of the images with masks, rising."""
    rows = np.flatnonzero(dataset.manifest["mask_offset"] >= 0)
    if not len(rows):
        raise ConfigError(f"{sizes.data}: no image has a mask.")
    some = np.random.default_rng(sizes.seed).permutation(rows)[: sizes.images]
    return sorted(some.tolist())


def truth_of(reader: ShardReader, row: int) -> Mask:
    png = reader.mask(row)
    if png is None:
        raise DataError(f"{reader.image_id(row)} has no mask.")
    return np.asarray(Image.open(io.BytesIO(png)).convert("L")) >= 128


def score(reader: ShardReader, rows: Sequence[int], way: Callable[[Pixels], Mask], name: str) -> list[MaskScores]:
    scores = []
    for row in console.progress(rows, len(rows), name):
        pixels = np.asarray(Image.open(io.BytesIO(reader.jpeg(row).tobytes())).convert("RGB"))
        scores.append(score_mask(truth_of(reader, row), way(pixels)))
    return scores


def small(mask: Mask) -> Mask:
    return np.asarray(Image.fromarray(mask).convert("L").resize((_SMALL, _SMALL), Image.Resampling.BOX)) >= 128


def ellipse(size: tuple[int, ...], axes: tuple[float, float]) -> Mask:
    """An ellipse in the centre, bool [h, w]; ``axes``: height and width in shares of the image."""
    y, x = (np.linspace(-1, 1, side) / axis for side, axis in zip(size, axes, strict=True))
    inside: Mask = y[:, None] ** 2 + x[None] ** 2 <= 1
    return inside


def best_axes(truth: Sequence[Mask]) -> tuple[float, float]:
    """The axes with the best mean Jaccard on these masks."""
    masks = np.stack(truth)
    means = {}
    for axes in ((height, width) for height in _AXES for width in _AXES):
        guess = ellipse(masks.shape[1:], axes)
        pairs = masks & guess, ~masks & guess, masks & ~guess, ~masks & ~guess
        means[axes] = overlap(*(pair.sum(axis=(1, 2)) for pair in pairs)).jaccard.mean()
    return max(means, key=lambda axes: means[axes])


def otsu_mask(pixels: Pixels) -> Mask:
    """The dark region near the centre of an image, uint8 [h, w, 3], as bool [h, w]."""
    height, width = pixels.shape[:2]
    diagonal = np.hypot(height, width)
    blue = ndimage.gaussian_filter(pixels[..., 2].astype(np.float32), _SMOOTH * diagonal)
    dark = blue <= otsu_threshold(blue)
    element = np.hypot(*np.mgrid[-1:1:9j, -1:1:9j]) <= 1  # a disc of 9 pixels, applied until it has the radius
    times = max(1, round(_MORPHOLOGY * diagonal / 4))
    dark = ndimage.binary_opening(dark, element, times)
    # The edge is repeated, or closing would take the outer rows of lesions that touch it.
    reach = 4 * times
    padded = ndimage.binary_closing(np.pad(dark, reach, mode="edge"), element, times)
    dark = padded[reach:-reach, reach:-reach]
    numbers, count = ndimage.label(dark)
    if not count:
        return np.zeros((height, width), dtype=bool)
    central = np.bincount(numbers.ravel(), ellipse((height, width), (0.7, 0.7)).ravel(), count + 1)
    central[0] = 0
    return largest_region(numbers == central.argmax())


def otsu_threshold(values: npt.NDArray[np.float32]) -> float:
    """The value that best separates two classes: the largest variance between them (Otsu 1979)."""
    counts, edges = np.histogram(values, 256)
    below = np.cumsum(counts)
    above = counts.sum() - below
    sums = np.cumsum(counts * (edges[:-1] + edges[1:]) / 2)
    with np.errstate(invalid="ignore", divide="ignore"):
        between = below * above * (sums / below - (sums[-1] - sums) / above) ** 2
    return float(edges[int(np.nanargmax(between)) + 1])


def scores_out_of_fold(run: Path, image_ids: pd.Series[str]) -> list[MaskScores]:
    """The out-of-fold scores of a segmentation run on these images. Raises DataError where it lacks one."""
    table = read_predictions(run / "predictions.parquet").set_index("image_id")
    if missing := set(image_ids) - set(table.index):
        raise DataError(f"{run}: has no score of {len(missing)} of the images. Name a run on this data set.")
    return [MaskScores(*row) for row in table.loc[list(image_ids)][list(METRICS)].itertuples(index=False)]


def cell(mean: Interval | Undefined) -> str:
    return f"{mean.estimate:.3f} ({mean.low:.3f} to {mean.high:.3f})" if isinstance(mean, Interval) else mean.reason


if __name__ == "__main__":
    run_benchmark(main)

"""Finds the lesions of photographs for a run that sees lesions, as the side table of its data set was made.

The segmenter that made the table lies in the run's folder. New photographs are in none of its folds, so the mean of
its models segments them; mask, box, margin, and the choice between box and whole image are those of the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from melanoma_dist.artifacts.lesion_table import BOX, ENSEMBLE, SCHEMA, LesionRecord, as_table, lesion_row
from melanoma_dist.artifacts.lesion_table import RECORD as LESIONS
from melanoma_dist.artifacts.records import read_record
from melanoma_dist.artifacts.segmenter_copy import SEGMENTER
from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.inference.images import Images
from melanoma_dist.inference.lesion_masks import LEAST_AREA, Box, Lesion, Outline, outline
from melanoma_dist.inference.photographs import Photographs
from melanoma_dist.inference.segmenter import TrainedSegmenter, fingerprint, open_segmenter
from melanoma_dist.train.fold_data import evaluation_batch
from melanoma_dist.train.region import regions_of
from melanoma_dist.world import World

_AGAIN = "Copy the run's folder again."


def open_own_segmenter(run: Path, lesions: str, world: World) -> TrainedSegmenter:
    """Open the segmenter in the folder of a run that was trained with the side table of fingerprint ``lesions``.

    Raises ConfigError where there is none, DataError where it is corrupt or has not made that table.
    """
    folder = run / SEGMENTER
    require_segmenter(run)
    record = read_record(folder / LESIONS, LesionRecord, _AGAIN, (SCHEMA,))
    if record.fingerprint != lesions:
        raise DataError(f"{folder}: belongs to another run, trained with other lesions. {_AGAIN}")
    segmenter = open_segmenter(folder, world)
    if record.segmenter != fingerprint(segmenter):
        raise DataError(f"{folder}: is not the segmenter that found the lesions of the run's training. {_AGAIN}")
    return segmenter


def require_segmenter(run: Path) -> None:
    """Raise ConfigError for a run that sees lesions and has no segmenter to find them."""
    if not (run / SEGMENTER / LESIONS).is_file():
        raise ConfigError(
            f"{run}: sees lesions (--region lesion) and holds no segmenter, so it cannot see new photographs. "
            "`segment apply` writes the segmenter beside the lesions that it finds: run it again with the same --out, "
            "then run the training command again. Both add what is missing, and train nothing. A run on true masks has "
            "no segmenter."
        )


def find_lesions(
    segmenter: TrainedSegmenter, images: Photographs | Images, margin: float, batch_size: int | None = None
) -> tuple[Lesion, ...]:
    """Find the lesion of each image by the mean of the models. ``margin``: as in `windows_around`."""
    sizes = images.sizes
    size = min(batch_size or evaluation_batch(segmenter.config), len(sizes))
    names: Sequence[str] = images.image_ids
    rows: list[dict[str, Any]] = []
    outlines: list[Outline] = []
    for pixels, batch in segmenter.loader(images, size):
        samples = batch.samples[: batch.count]
        masks = segmenter.masks(pixels, [sizes[sample] for sample in samples])
        for sample, (mask, quality) in zip(samples, masks, strict=True):
            rows.append(lesion_row(names[sample], ENSEMBLE, mask, quality, LEAST_AREA))
            outlines.append(outline(mask) if rows[-1]["detected"] else ())
    table = as_table(pd.DataFrame(rows))
    regions = regions_of(table, pd.DataFrame(sizes, columns=["width", "height"]), margin)
    windows = np.concatenate([regions.windows.anchor, regions.windows.extent], axis=1)
    whole = regions.undetected | regions.doubtful
    return tuple(
        Lesion(
            "whole" if whole[at] else "lesion",
            _box(row[list(BOX)]) if row["detected"] else None,
            float(row["area"]),
            float(row["quality"]),
            _box(windows[at]),
            outlines[at],
        )
        for at, (_, row) in enumerate(table.iterrows())
    )


def _box(values: object) -> Box:
    top, left, height, width = np.asarray(values, dtype=np.float64).tolist()
    return top, left, height, width

"""Finds the lesions of photographs for a run that sees lesions, as the side table of its data set was made.

The segmenter that made the table lies in the run's folder. New photographs are in none of its folds, so the mean of
its models segments them; mask, box, margin, and the choice between box and whole image are those of the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from melanoma_dist.artifacts.lesion_table import BOX, ENSEMBLE, SCHEMA, LesionRecord, as_table, encode, lesion_row
from melanoma_dist.artifacts.lesion_table import RECORD as LESIONS
from melanoma_dist.artifacts.records import read_record
from melanoma_dist.artifacts.segmenter_copy import SEGMENTER
from melanoma_dist.config.region import RegionConfig
from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.inference.images import Images
from melanoma_dist.inference.lesion_masks import LEAST_AREA, WHOLE, Box, Lesion, MaskSeen, Outline, outline
from melanoma_dist.inference.photographs import Photographs
from melanoma_dist.inference.segmenter import TrainedSegmenter, fingerprint, open_segmenter
from melanoma_dist.train.fold_data import evaluation_batch
from melanoma_dist.train.region import Trust, empty_png, windows_of
from melanoma_dist.world import World

_AGAIN = "Copy the run's folder again."


def open_own_segmenter(run: Path, lesions: str, sight: RegionConfig, world: World) -> TrainedSegmenter:
    """Open the segmenter in the folder of a run that sees lesions: of the side table of fingerprint ``lesions``.

    Raises ConfigError where there is none, DataError where it is corrupt or has not made that table.
    """
    folder = run / SEGMENTER
    require_segmenter(run, sight)
    record = read_record(folder / LESIONS, LesionRecord, _AGAIN, (SCHEMA,))
    if record.fingerprint != lesions:
        raise DataError(f"{folder}: belongs to another run, trained with other lesions. {_AGAIN}")
    segmenter = open_segmenter(folder, world)
    if record.segmenter != fingerprint(segmenter):
        raise DataError(f"{folder}: is not the segmenter that found the lesions of the run's training. {_AGAIN}")
    return segmenter


def require_segmenter(run: Path, sight: RegionConfig) -> None:
    """Raise ConfigError for a run that sees lesions and has no segmenter to find them."""
    if not (run / SEGMENTER / LESIONS).is_file():
        raise ConfigError(
            f"{run}: sees lesions ({sight.flags}) and holds no segmenter, so it cannot see new photographs. "
            "`segment apply` writes the segmenter beside the lesions that it finds: run it again with the same --out, "
            "then run the training command again. Both add what is missing, and train nothing. A run on true masks has "
            "no segmenter."
        )


class Finding(NamedTuple):
    """What a segmenter finds in an image."""

    lesion: Lesion
    png: bytes
    """The mask that a model sees: an empty one where none is trusted. As large as the image."""


def find_lesions(
    segmenter: TrainedSegmenter, images: Photographs | Images, sight: RegionConfig, batch_size: int | None = None
) -> list[Finding]:
    """Find the lesion of each image by the mean of the models. ``sight``: what a classifier sees of images."""
    sizes = images.sizes
    size = min(batch_size or evaluation_batch(segmenter.config), len(sizes))
    names: Sequence[str] = images.image_ids
    rows: list[dict[str, Any]] = []
    outlines: list[Outline] = []
    files: list[bytes] = []
    for pixels, batch in segmenter.loader(images, size):
        samples = batch.samples[: batch.count]
        masks = segmenter.masks(pixels, [sizes[sample] for sample in samples])
        for sample, (mask, quality) in zip(samples, masks, strict=True):
            rows.append(lesion_row(names[sample], ENSEMBLE, mask, quality, LEAST_AREA))
            outlines.append(outline(mask) if rows[-1]["detected"] else ())
            files.append(encode(mask))
    table, shapes = as_table(pd.DataFrame(rows)), np.array(sizes, dtype=np.int64)[:, ::-1]
    trust = Trust.of(table)
    around = windows_of(table, shapes, trust, sight.region_margin)
    windows = np.concatenate([around.anchor, around.extent], axis=1)
    findings = []
    for at, (_, row) in enumerate(table.iterrows()):
        missing = bool(trust.missing[at])
        windowed = sight.region == "lesion"
        mask_seen: MaskSeen = "none" if sight.mask == "none" else "empty" if missing else "lesion"
        lesion = Lesion(
            "lesion" if windowed and not missing else "whole",
            _box(row[list(BOX)]) if row["detected"] else None,
            float(row["area"]),
            float(row["quality"]),
            _box(windows[at]) if windowed else WHOLE,
            outlines[at],
            mask_seen,
        )
        findings.append(Finding(lesion, empty_png(*shapes[at].tolist()) if missing else files[at]))
    return findings


def _box(values: object) -> Box:
    top, left, height, width = np.asarray(values, dtype=np.float64).tolist()
    return top, left, height, width

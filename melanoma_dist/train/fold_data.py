"""What a unit learns from and is validated on: the images of its fold, found and checked."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from melanoma_dist.config.run import RunConfig
from melanoma_dist.data.folds import read_folds
from melanoma_dist.data.labels import LABEL_SETS, targets
from melanoma_dist.data.manifest import load_dataset
from melanoma_dist.data.node_copies import local_copy
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.errors import DataError
from melanoma_dist.input.graph import InputFormat
from melanoma_dist.input.loader import EvaluationLoader, Samples, TrainingLoader
from melanoma_dist.models.backbones import published_input
from melanoma_dist.train.unit import Unit
from melanoma_dist.world import World

_LARGEST_EVALUATION_BATCH = 64


@dataclass(frozen=True)
class FoldData:
    """The images of a unit."""

    manifest: pd.DataFrame
    training: Samples
    validation: Samples

    def validation_images(self) -> pd.DataFrame:
        """The manifest's rows of the validation images."""
        return self.manifest.iloc[self.validation.rows]


def input_format_of(unit: Unit) -> InputFormat:
    """The square input of a unit's backbone."""
    expected = published_input(unit.config.model.backbone)
    return InputFormat(unit.config.input.image_size or expected.size, expected.mean, expected.std)


def evaluation_batch(config: RunConfig) -> int:
    """Images of a batch that is only looked at: no more than are trained on at once."""
    return min(-(-config.input.batch_size // config.optimizer.accumulate), _LARGEST_EVALUATION_BATCH)


def load_fold_data(unit: Unit, note: Callable[[str], None], damaged: Collection[str] = ()) -> FoldData:
    """The images of a unit, from a copy on this node where the data lies in a storage.

    Those that are ``damaged`` are not learnt from. Raises DataError for another data set than the run was planned with.
    """
    dataset = load_dataset(local_copy(unit.data, unit.fingerprint, note))
    if dataset.fingerprint != unit.fingerprint:
        raise DataError(f"{unit.data}: the data set changed after the run was planned. Run the command again.")
    folds = read_folds(unit.run / "folds.parquet").set_index("image_id")["fold"]
    fold_of = dataset.manifest["image_id"].map(folds)
    shards, labels = ShardReader(dataset), LABEL_SETS[unit.config.data.labels]

    def samples(chosen: Any, damaged: Collection[str] = ()) -> Samples:
        rows = np.flatnonzero(chosen)
        images = dataset.manifest.iloc[rows]
        largest = int(images["width"].max()), int(images["height"].max())
        spoilt = np.flatnonzero(images["image_id"].isin(list(damaged)))
        return Samples(shards, rows, targets(images, labels), largest, spoilt)

    training = samples((fold_of.notna() & (fold_of != unit.fold)).to_numpy(), damaged)
    return FoldData(dataset.manifest, training, samples((fold_of == unit.fold).to_numpy()))


def loaders(unit: Unit, fold_data: FoldData, world: World) -> tuple[TrainingLoader, EvaluationLoader]:
    """The batches that this rank trains on, and those it validates."""
    config, frame = unit.config, input_format_of(unit)
    chosen = config.input
    training = TrainingLoader(
        fold_data.training, frame, chosen.batch_size, chosen.augment, chosen.balance, config.seed, world
    )
    return training, EvaluationLoader(fold_data.validation, frame, evaluation_batch(config), world)

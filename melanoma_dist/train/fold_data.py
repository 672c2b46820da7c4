"""The training and validation images of a fold, checked against the plan of the run."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

import numpy as np
import pandas as pd

from melanoma_dist.config.metadata import field_names
from melanoma_dist.config.run import RunConfig
from melanoma_dist.data.folds import read_folds
from melanoma_dist.data.manifest import load_dataset
from melanoma_dist.data.node_copies import local_copy
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.errors import DataError
from melanoma_dist.input.graph import InputFormat
from melanoma_dist.input.loader import EvaluationLoader, TrainingLoader
from melanoma_dist.input.samples import MaskedSamples, Samples
from melanoma_dist.models.backbones import published_input
from melanoma_dist.train.region import load_regions
from melanoma_dist.train.unit import Unit
from melanoma_dist.world import World

_LARGEST_EVALUATION_BATCH = 64
_TIMES_ON_GPU, _LARGEST_ON_GPU = 4, 256


@dataclass(frozen=True)
class FoldData:
    """The images of a unit."""

    manifest: pd.DataFrame
    training: Samples
    validation: Samples
    run_images: Samples
    """Both, in the order of the run's folds."""

    def validation_images(self) -> pd.DataFrame:
        """The manifest's rows of the validation images."""
        return self.manifest.iloc[self.validation.rows]


def input_format_of(unit: Unit) -> InputFormat:
    """The square input of a unit's backbone."""
    expected = published_input(unit.config.model.backbone)
    return InputFormat(unit.config.input.image_size or expected.size, expected.mean, expected.std)


def evaluation_batch(config: RunConfig) -> int:
    """Batch size of an evaluation: no more images than are trained on at once."""
    return min(_micro_batch(config), _LARGEST_EVALUATION_BATCH)


def validation_batch(config: RunConfig, world: World) -> int:
    """Batch size of a unit's own evaluations.

    Without gradients a batch keeps no activations, so more images fit into a GPU than are trained on at once, and
    larger batches take fewer launches of kernels. On the CPU it is the batch size of other evaluations, so that
    `predict` computes the same bits.
    """
    if world.gpu is None:
        return evaluation_batch(config)
    return min(_TIMES_ON_GPU * _micro_batch(config), _LARGEST_ON_GPU)


def _micro_batch(config: RunConfig) -> int:
    return -(-config.input.batch_size // config.optimizer.accumulate)


def load_fold_data(unit: Unit, note: Callable[[str], None], corrupt: Collection[str] = ()) -> FoldData:
    """Load the images of a unit. Data in remote storage is copied to this node first; ``note`` takes its messages.

    The ids in ``corrupt`` are not trained on. Raises DataError for another data set than the run was planned with.
    """
    dataset = load_dataset(local_copy(unit.data, unit.fingerprint, note))
    if dataset.fingerprint != unit.fingerprint:
        raise DataError(f"{unit.data}: the data set changed after the run was planned. Run the command again.")
    manifest, labels = dataset.manifest, unit.config.data.label_set()
    fields = field_names(unit.config.model.metadata)
    folds = read_folds(unit.run / "folds.parquet").set_index("image_id")["fold"]
    fold_of = manifest["image_id"].map(folds)  # NaN for images of a holdout
    shards, own = ShardReader(dataset), (fold_of == unit.fold).to_numpy()
    others = (fold_of.notna() & (fold_of != unit.fold)).to_numpy()
    kind = MaskedSamples if unit.config.task == "segmentation" else Samples
    every = pd.Index(manifest["image_id"]).get_indexer(folds.index)
    regions = load_regions(unit.config, dataset)
    windows = None if regions is None else regions.windows
    masks = None if regions is None else regions.masks
    return FoldData(
        manifest,
        training=kind.of_rows(shards, manifest, np.flatnonzero(others), labels, corrupt, windows, fields, masks),
        validation=kind.of_rows(shards, manifest, np.flatnonzero(own), labels, (), windows, fields, masks),
        run_images=kind.of_rows(shards, manifest, every, labels, corrupt, windows, seen_masks=masks),
    )


def loaders(unit: Unit, fold_data: FoldData, world: World) -> tuple[TrainingLoader, EvaluationLoader]:
    """Build the loaders of this rank's training and validation batches."""
    config, expected = unit.config, input_format_of(unit)
    batch_size, augment, balance = config.input.batch_size, config.input.augment, config.input.balance
    training = TrainingLoader(fold_data.training, expected, batch_size, augment, balance, config.seed, world)
    return training, EvaluationLoader(fold_data.validation, expected, validation_batch(config, world), world)

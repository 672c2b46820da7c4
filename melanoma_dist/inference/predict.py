"""What the models of a run say of images: each fold's weights, the graph of validation, in one or more orientations.

Shapes: n images, k folds, L labels, V views.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from melanoma_dist.artifacts.run_folder import hashes_of
from melanoma_dist.config.hardware import HardwareConfig
from melanoma_dist.data.labels import LABEL_SETS, targets
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.errors import ConfigError, DataError, TrainingError
from melanoma_dist.inference.ensemble import load_model
from melanoma_dist.inference.images import Images
from melanoma_dist.input.graph import ORIENTATIONS
from melanoma_dist.input.loader import EvaluationLoader, Samples
from melanoma_dist.models.classifier import Classifier
from melanoma_dist.train.checkpoint import best_hashes
from melanoma_dist.train.device import configure_device
from melanoma_dist.train.fold_data import evaluation_batch, input_format_of
from melanoma_dist.train.predict import predict, to_device, uses_amp
from melanoma_dist.train.unit import Unit
from melanoma_dist.world import World


class EnsembleModel(nn.Module):
    """Models side by side: images [b, 3, S, S] to their logits [b, k * L], so that an image is decoded once for all."""

    def __init__(self, models: Sequence[Classifier]) -> None:
        super().__init__()
        self.models = nn.ModuleList(models)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[b, 3, S, S] -> [b, k * L]."""
        return torch.cat([model(images).float() for model in self.models], dim=1)


def world_of(gpus: int | None, threads: int | None) -> World:
    """This process alone, on the first GPU or the CPU. Raises ConfigError where there is no GPU and none was chosen."""
    if gpus != 0 and not torch.cuda.is_available():
        raise ConfigError("--gpus: there is no GPU here, and that is a choice to be made: --gpus 0 uses the CPU.")
    world = World(gpu=None if gpus == 0 else 0, threads=threads or len(os.sched_getaffinity(0)))
    configure_device(world.gpu, world.threads)
    return world


def hashes(units: Sequence[Unit]) -> dict[str, str]:
    """The sha256 of each fold's weights. Raises DataError for weights that are missing or not those of the training."""
    found = {}
    for unit in units:
        digest = _sha256(unit.model)
        trained = best_hashes(unit.folder / "checkpoints")
        if trained and digest not in trained:
            raise DataError(
                f"{unit.model}: is not the file that the training left (its checkpoints have another hash). Bring it "
                f"back: the best checkpoint of {unit.folder / 'checkpoints'} holds it as model.safetensors."
            )
        found[str(unit.fold)] = digest
    return found


def load_models(units: Sequence[Unit]) -> EnsembleModel:
    """The models of all folds, on the CPU. Raises DataError for weights that are damaged or of another model."""
    return EnsembleModel([load_model(unit) for unit in units])


def predict_folds(
    models: EnsembleModel, units: Sequence[Unit], images: Images, views: int, batch_size: int | None, world: World
) -> npt.NDArray[np.float32]:
    """The probabilities [k, n, L] of each fold, the mean over the first ``views`` of ``ORIENTATIONS``, not calibrated.

    ``batch_size`` None is that of validation, with which, on the CPU and as many threads, the same weights say the same
    to the bit. Raises DataError for images that are damaged and ConfigError where the GPU's memory does not do.
    """
    config, labels = units[0].config, LABEL_SETS[units[0].config.data.labels]
    hardware = config.hardware
    loader = _loader(units[0], images, batch_size or evaluation_batch(config), world)
    models = to_device(models, world, hardware)
    count = len(images.rows)
    try:
        total = sum(_view(models, loader, view, count, world, hardware) for view in range(views))
    except torch.OutOfMemoryError as error:
        used = batch_size or evaluation_batch(config)
        raise ConfigError.of("batch_size", used, "the GPU's memory does not hold them", "Try half as many.") from error
    mean = np.asarray(total, dtype=np.float64) / views
    if not np.isfinite(mean).all():
        raise TrainingError("The models predict NaN for some images: the weights are worthless.")
    return mean.astype(np.float32).reshape(count, len(units), len(labels)).transpose(1, 0, 2)


def _view(
    models: EnsembleModel, loader: EvaluationLoader, view: int, count: int, world: World, hardware: HardwareConfig
) -> npt.NDArray[np.float64]:
    found = predict(models, loader.batches(ORIENTATIONS[view]), count, world, uses_amp(world, hardware))
    return found.astype(np.float64)


def _loader(unit: Unit, images: Images, batch_size: int, world: World) -> EvaluationLoader:
    table = images.table
    largest = int(table["width"].max()), int(table["height"].max())
    truth = targets(table, LABEL_SETS[unit.config.data.labels])
    samples = Samples(ShardReader(images.dataset), images.rows, truth, largest)
    return EvaluationLoader(samples, input_format_of(unit), batch_size, world)


def _sha256(path: Path) -> str:
    try:
        return hashes_of(path)[path.name]
    except OSError as error:
        raise DataError(
            f"{path}: the fold's model cannot be read ({error.strerror}). Copy it again; the best checkpoint of the "
            "fold, in its folder, holds the same file as model.safetensors."
        ) from error

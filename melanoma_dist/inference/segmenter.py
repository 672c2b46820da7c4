"""The segmenters of a finished segmentation run: images in, probabilities of lesion out.

An image that a fold validates is unknown to that fold's model alone, and so is every image of its group. `fold_of` says
which one; all other images are for the mean of the models.

Shapes: b images of a batch, S pixels a side of the network's input.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from melanoma_dist.artifacts.integrity import weights_sha256
from melanoma_dist.artifacts.mask_summary import MaskSummary, read_mask_summary
from melanoma_dist.artifacts.run_folder import RunFolder
from melanoma_dist.artifacts.run_record import RECORD, read_run_record
from melanoma_dist.config.run import RunConfig
from melanoma_dist.config.saved import saved_config
from melanoma_dist.data.folds import read_folds
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.errors import ConfigError
from melanoma_dist.inference.fold_weights import load_fold_weights
from melanoma_dist.inference.images import Images
from melanoma_dist.inference.lesion_masks import Mask, largest_region, mask_quality
from melanoma_dist.inference.photographs import Photographs
from melanoma_dist.inference.trained_run import dataset_of, refuse_unfinished, trained_images
from melanoma_dist.input.loader import EvaluationLoader
from melanoma_dist.input.samples import Samples
from melanoma_dist.models.segmenter import Segmenter, build_segmenter
from melanoma_dist.train.fold_data import evaluation_batch, input_format_of
from melanoma_dist.train.mask_predict import mask_at, mask_probabilities
from melanoma_dist.train.predict import autocast, to_device, uses_amp
from melanoma_dist.train.unit import Unit
from melanoma_dist.world import World


@dataclass(frozen=True)
class TrainedSegmenter:
    """A finished segmentation run."""

    folder: RunFolder
    config: RunConfig
    summary: MaskSummary
    world: World

    @property
    def fingerprint(self) -> str:
        """Of the data set that it was trained on."""
        return str(self.folder.identity["data"])

    @property
    def synthetic(self) -> bool:
        """Whether it was trained on images that the program drew."""
        return self.summary.synthetic

    @property
    def labels(self) -> tuple[str, ...]:
        """None: a mask has no label."""
        return ()

    def dataset(self, moved_to: str | None) -> Dataset:
        """The data set that it was trained on; see `TrainedRun.dataset`."""
        return dataset_of(self.folder, self.config, moved_to)

    def trained(self, dataset: Dataset) -> Images:
        """The images that its folds were trained on; see `TrainedRun.trained`."""
        return trained_images(self.folder, dataset)

    @property
    def threshold(self) -> float:
        """Probability from which a pixel counts as lesion."""
        return self.config.threshold

    @cached_property
    def units(self) -> list[Unit]:
        """The folds."""
        data, path = self.config.data.data or "", self.folder.path.resolve()
        return [Unit(self.config, fold, data, self.fingerprint, path) for fold in range(self.config.data.folds)]

    @cached_property
    def weights_sha256(self) -> dict[int, str]:
        """The sha256 of each fold's weights. Raises DataError for weights that are missing or replaced."""
        return {unit.fold: weights_sha256(unit.folder, unit.model) for unit in self.units}

    @cached_property
    def fold_of(self) -> dict[str, int]:
        """By group, the fold that validates its images: the only model that has seen none of them."""
        folds = read_folds(self.folder.folds)
        return dict(zip(folds["group"].astype(str), folds["fold"].astype(int), strict=True))

    @cached_property
    def models(self) -> list[Segmenter]:
        """The model of each fold, on the device. Raises DataError for weights that are corrupt or of another fold."""
        _ = self.weights_sha256
        return [to_device(load_fold(unit), self.world, self.config.hardware).eval() for unit in self.units]

    def loader(self, images: Images | Photographs, batch_size: int | None = None) -> EvaluationLoader:
        """Batches of images as the models take them; ``batch_size`` of one rank."""
        samples = Samples(images.store, images.rows, images.truth(()), images.largest)
        size = batch_size or evaluation_batch(self.config)
        return EvaluationLoader(samples, input_format_of(self.units[0]), size, self.world)

    def probabilities(self, images: torch.Tensor, fold: int | None = None, tta: int | None = None) -> torch.Tensor:
        """Probability of lesion for each pixel, float32 [b, S, S], of images [b, 3, S, S] on the device.

        ``fold``: that fold's model alone; None: the mean over the folds. ``tta``: orientations to average, None: as
        many as in the run. `train.mask_predict.mask_at` makes the mask of an image of any size from its [S, S].
        """
        models = self.models if fold is None else [self.models[fold]]
        orientations = tta or self.config.input.tta
        with torch.inference_mode(), autocast(uses_amp(self.world, self.config.hardware)):
            return torch.stack([mask_probabilities(model, images, orientations) for model in models]).mean(0)

    def masks(
        self, images: torch.Tensor, sizes: Sequence[tuple[int, int]], fold: int | None = None
    ) -> Iterator[tuple[Mask, float]]:
        """Yield the mask [h, w] of each image, one region without holes, and its quality.

        ``sizes``: width and height of the first images of the batch, as they are stored; the rest of it is padding.
        """
        for probability, (width, height) in zip(self.probabilities(images, fold), sizes, strict=False):
            mask = largest_region(mask_at(probability, height, width, self.threshold))
            yield mask, mask_quality(probability.cpu().numpy(), self.threshold)


def fingerprint(run: TrainedSegmenter) -> str:
    """The sha256 (hex) of all that masks depend on besides the images: weights, threshold, orientations."""
    weights = [digest for _, digest in sorted(run.weights_sha256.items())]
    return hashlib.sha256("\n".join([*weights, str(run.threshold), str(run.config.input.tta)]).encode()).hexdigest()


def open_segmenter(path: Path, world: World | None = None) -> TrainedSegmenter:
    """Open a segmentation run. Raises ConfigError or DataError unless it is one, whole and finished."""
    record = path / RECORD
    if not record.is_file():
        raise ConfigError(f"{path}: is not the folder of a segmentation run. `segment --encoder NAME` trains one.")
    folder, config = RunFolder(path, read_run_record(record).identity), saved_config(path / "config.yaml")
    if config.task != "segmentation":
        raise ConfigError(f"{path}: is the run of a classifier. Name a run that `segment` trained.")
    refuse_unfinished(folder, "segment")
    return TrainedSegmenter(folder, config, read_mask_summary(path), world or World())


def load_fold(unit: Unit) -> Segmenter:
    """The model of one fold, on the CPU. Raises DataError for weights that are corrupt or of another fold."""
    model = build_segmenter(unit.config.model, input_format_of(unit).size, unit.config.seed, weights="none")
    load_fold_weights(model, unit, {"task": "segmentation"})
    return model

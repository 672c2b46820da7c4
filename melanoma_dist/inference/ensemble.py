"""The ensemble of a run's folds: images in, the mean of the folds' calibrated probabilities out.

Validation, evaluation and new photographs share one preprocessing: the evaluation graph of `melanoma_dist.input`.

Shapes: n images, k folds, L labels, b images of a batch, S pixels a side, C channels (3, or 4 with a mask).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from melanoma_dist.artifacts.decision_rules import DecisionRules
from melanoma_dist.artifacts.features import FeatureSpace
from melanoma_dist.artifacts.integrity import weights_sha256
from melanoma_dist.config.label_sets import LabelSet
from melanoma_dist.config.metadata import field_names
from melanoma_dist.config.run import RunConfig
from melanoma_dist.errors import ConfigError, DataError, TrainingError
from melanoma_dist.inference.ensemble_predictions import Array, EnsemblePredictions
from melanoma_dist.inference.fold_weights import load_fold_weights
from melanoma_dist.inference.images import Images
from melanoma_dist.inference.lesion_finder import find_lesions, open_own_segmenter
from melanoma_dist.inference.lesion_masks import Lesion
from melanoma_dist.inference.neighbours import RunFeatures
from melanoma_dist.inference.photographs import Metadata, Photograph, Photographs
from melanoma_dist.inference.segmenter import TrainedSegmenter
from melanoma_dist.inference.trained_run import TrainedRun, open_trained_run
from melanoma_dist.input.graph import ORIENTATIONS
from melanoma_dist.input.loader import EvaluationLoader
from melanoma_dist.input.region import Windows
from melanoma_dist.input.samples import MaskFiles, Samples
from melanoma_dist.models.classifier import Classifier, build_classifier
from melanoma_dist.train.device import configure_device
from melanoma_dist.train.fold_data import evaluation_batch, input_format_of
from melanoma_dist.train.predict import Outputs, collect, mean_of_views, probabilities_of, to_device, uses_amp
from melanoma_dist.train.region import load_regions
from melanoma_dist.train.unit import Unit
from melanoma_dist.world import World


class Ensemble:
    """The models of all folds of one run, with the run's decision rules."""

    def __init__(
        self, run: Path, config: RunConfig, fingerprint: str, rules: DecisionRules, image_size: int, world: World,
        lesions: str | None = None,
    ) -> None:  # fmt: skip
        """``fingerprint``: of the data set; ``image_size``: pixels to which it reduced the shorter side of images;
        ``lesions``: fingerprint of the side table of lesions, for a run that sees lesions.

        Of a run with repeats, the folds are those of the first seed, whose metrics are the run's.
        """
        data = config.data.data or ""
        self.units = [Unit(config, fold, data, fingerprint, run) for fold in range(config.data.folds)]
        self.labels: LabelSet = config.data.label_set()
        self.metadata_fields = field_names(config.model.metadata)
        """What the models take beside an image. Photographs of which it is unknown are predicted all the same."""
        self.rules, self.world = rules, world
        self._config, self._image_size, self._lesions = config, image_size, lesions

    @classmethod
    def load(cls, run: str | Path, gpus: int | None = 0, threads: int | None = None) -> Ensemble:
        """The ensemble of a finished run: on the CPU by default, ``gpus=1`` or None on the first GPU.

        ``threads`` decode images and, on the CPU, compute; as many as there are cores where None. Raises ConfigError
        for a folder without a finished run and for a machine without a GPU, DataError for corrupt files.
        """
        return cls.of(open_trained_run(Path(run)), one_process(gpus, threads))

    @classmethod
    def of(cls, run: TrainedRun, world: World) -> Ensemble:
        """The ensemble of a run that is open. Raises DataError for weights that are missing, corrupt or replaced."""
        path = run.folder.path.resolve()
        size, lesions = run.image_size, run.lesions
        ensemble = cls(path, run.config, run.fingerprint, run.decision_rules, size, world, lesions)
        _ = ensemble.weights_sha256, ensemble.model
        return ensemble

    @cached_property
    def weights_sha256(self) -> dict[int, str]:
        """The sha256 of each fold's weights. Raises DataError for weights that are missing or replaced."""
        return {unit.fold: weights_sha256(unit.folder, unit.model) for unit in self.units}

    def fold_model(self, fold: int) -> Classifier:
        """The model of one fold with its weights, on the CPU. Raises DataError for weights of another model."""
        return _load_model(self.units[fold])

    @property
    def folds(self) -> list[Classifier]:
        """The models of the folds, on the ensemble's device."""
        return list(self.model.models)

    @cached_property
    def model(self) -> _SideBySide:
        """All folds side by side, on the ensemble's device: images [b, C, S, S] to logits [b, k * L]."""
        models = _SideBySide([self.fold_model(unit.fold) for unit in self.units])
        return to_device(models, self.world, self._config.hardware).eval()

    def loader(self, images: Images | Photographs, batch_size: int | None = None) -> EvaluationLoader:
        """Batches of images as the models take them; validation's batch size where ``batch_size`` is None."""
        images = self.located(images)
        samples = Samples(images.store, images.rows, images.truth(self.labels), images.largest)
        codes = images.metadata(self.metadata_fields) if self.metadata_fields else None
        windows, masks = self._sight(images)
        samples = replace(samples, windows=windows, metadata=codes, seen_masks=masks)
        return EvaluationLoader(samples, input_format_of(self.units[0]), self._batch(batch_size), self.world)

    def windows(self, images: Images | Photographs) -> Windows | None:
        """The part that the models see of each image [n]; None where they see whole images.

        The lesions of photographs and of another data set are looked for. Raises DataError for another table of lesions
        than that of the training.
        """
        return None if self._config.region.region == "whole" else self._sight(self.located(images))[0]

    def _sight(self, images: Images | Photographs) -> tuple[Windows | None, MaskFiles | None]:
        """The part that the models see of each image [n], and the masks of the rows of the images' store.

        ``images`` are located.
        """
        sight = self._config.region
        if not sight.needs_lesions:
            return None, None
        windowed, masked = sight.region == "lesion", sight.mask == "channel"
        if isinstance(images, Photographs):
            return _windows(images.lesions) if windowed else None, images if masked else None
        if images.dataset.fingerprint != self.units[0].fingerprint and self.segmenter is not None:
            findings = find_lesions(self.segmenter, images, sight)
            windows = _windows([each.lesion for each in findings]) if windowed else None
            files = {int(row): each.png for row, each in zip(images.rows, findings, strict=True)}
            return windows, _MasksInMemory(files) if masked else None
        regions = load_regions(self._config, images.dataset, self._lesions)
        if regions is None:
            return None, None
        return None if regions.windows is None else regions.windows[images.rows], regions.masks

    def located(self, images: Images | Photographs) -> Images | Photographs:
        """Photographs with their lesions, for a run that sees lesions; everything else as it is.

        Raises as `lesion_finder.open_own_segmenter` does.
        """
        if isinstance(images, Images) or images.lesions or self.segmenter is None:
            return images
        lesions, masks = zip(*find_lesions(self.segmenter, images, self._config.region), strict=True)
        return replace(images, lesions=lesions, masks=masks if self._config.region.mask == "channel" else ())

    @cached_property
    def segmenter(self) -> TrainedSegmenter | None:
        """What finds the lesions of photographs; None for a run that sees whole images."""
        if self._lesions is None:
            return None
        return open_own_segmenter(self.units[0].run, self._lesions, self._config.region, self.world)

    @cached_property
    def run_features(self) -> RunFeatures | None:
        """The run's own images as the models see them; None for a run without. Raises DataError for corrupt ones."""
        features = RunFeatures.read(self.units)
        for unit, model, space in zip(self.units, self.folds, features.spaces if features else (), strict=False):
            if len(space.basis) != model.channels:
                wrong = f"of {len(space.basis)} channels, and its model has {model.channels}"
                raise DataError(f"{unit.folder}: the features are {wrong}. Copy features.safetensors again.")
        return features

    def predict(
        self,
        images: Images | Photographs | Sequence[Photograph],
        tta: int | None = None,
        batch_size: int | None = None,
        features: bool = False,
        about: Sequence[Metadata] | None = None,
    ) -> EnsemblePredictions:
        """Predict images of a data set, or photographs: paths of image files, their bytes, images of Pillow, or
        arrays [height, width, 3] of uint8.

        ``about`` says what is known of the patient of each photograph, ``{"age": 55, "sex": "female"}``; a data set has
        its own metadata. ``tta`` averages the first 1 to 8 orientations of each image; None: as many as in the run.
        ``features`` adds the features of the upright images, where the run has any. On the CPU, with the run's ``tta``,
        validation's batch size and as many threads, a fold predicts for its validation images to the bit what it
        predicted in training. Raises DataError for unreadable images, ConfigError where the GPU's memory is too small.
        """
        tta = self._config.input.tta if tta is None else tta
        if not 1 <= tta <= len(ORIENTATIONS):
            raise ConfigError.of("tta", tta, f"must be 1 to {len(ORIENTATIONS)}")
        if any(about or ()) and not self.metadata_fields:
            raise ConfigError("predict: `about` is for runs that take metadata, and this one does not. Leave it out.")
        chosen = images
        if not isinstance(chosen, Images | Photographs):
            chosen = Photographs.prepare(chosen, self._image_size, about)
        elif about is not None:
            raise ConfigError("predict: `about` is for photographs. Images of a data set have metadata of their own.")
        chosen = self.located(chosen)
        loader, count = self.loader(chosen, batch_size), len(chosen.rows)
        spaces = self.run_features.spaces if features and self.run_features else ()
        raw, coordinates = self._outputs(loader, count, tta, self._batch(batch_size), spaces)
        calibrated = np.stack([self.rules.calibrate_array(fold, self.labels) for fold in raw])
        thresholds = self.rules.thresholds(self.labels, self._config.threshold)
        lesions = chosen.lesions if isinstance(chosen, Photographs) else ()
        return EnsemblePredictions(chosen.image_ids, self.labels, raw, calibrated, thresholds, coordinates, lesions)

    def _batch(self, batch_size: int | None) -> int:
        return batch_size or evaluation_batch(self._config)

    def _outputs(
        self, loader: EvaluationLoader, count: int, tta: int, batch_size: int, spaces: tuple[FeatureSpace, ...]
    ) -> tuple[Array, tuple[Array, ...]]:
        """[k, n, L] probabilities of each fold, the mean over orientations, and the coordinates in ``spaces``.

        The upright orientation gives both in one pass.
        """
        amp, model = uses_amp(self.world, self._config.hardware), self.model
        try:
            first = collect(model.with_coordinates(spaces), loader, count, self.world, amp)
            width = len(self.units) * len(self.labels)
            others = (loader.batches(view) for view in ORIENTATIONS[1:tta])
            views = [first[:, :width]]
            views += [collect(probabilities_of(model), batches, count, self.world, amp) for batches in others]
        except torch.OutOfMemoryError as error:
            rule = "needs more memory than the GPU has"
            raise ConfigError.of("batch_size", batch_size, rule, "Try half as many.") from error
        mean = mean_of_views(views)
        if not np.isfinite(mean).all():
            raise TrainingError("The models predict NaN for some images: their weights are useless. Train anew.")
        by_fold = mean.reshape(count, len(self.units), len(self.labels)).transpose(1, 0, 2)
        ends = np.cumsum([width, *(space.basis.shape[1] for space in spaces)])
        return by_fold, tuple(first[:, start:end] for start, end in pairwise(ends))


def one_process(gpus: int | None, threads: int | None) -> World:
    """This process alone, on the first GPU or (``gpus`` 0) the CPU.

    Raises ConfigError where a GPU is asked for and the machine has none: a CPU is chosen, never fallen back to.
    """
    if gpus != 0 and not torch.cuda.is_available():
        raise ConfigError("--gpus: this machine has no GPU. Give --gpus 0 to use the CPU.")
    world = World(gpu=None if gpus == 0 else 0, threads=threads or len(os.sched_getaffinity(0)))
    configure_device(world.gpu, world.threads)
    return world


class _SideBySide(nn.Module):
    """The models of all folds in one module, so that an image is decoded once for all."""

    def __init__(self, models: Sequence[Classifier]) -> None:
        super().__init__()
        self.models: Sequence[Classifier] = nn.ModuleList(models)  # type: ignore[assignment]

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """[b, C, S, S], and metadata [b, F], -> [b, k * L]."""
        return torch.cat([model(*inputs).float() for model in self.models], dim=1)

    def with_coordinates(self, spaces: Sequence[FeatureSpace]) -> Outputs:
        """What models take to [b, k * L + d]: probabilities, and the coordinates in the spaces of all folds."""
        if not spaces:
            return probabilities_of(self)
        device = next(self.parameters()).device
        bases = [torch.from_numpy(space.basis).to(device) for space in spaces]

        def outputs(*inputs: torch.Tensor) -> torch.Tensor:
            logits, features = zip(*(model.with_features(*inputs) for model in self.models), strict=True)
            probabilities = torch.sigmoid(torch.cat([each.float() for each in logits], dim=1))
            with torch.autocast(device.type, enabled=False):  # coordinates of float32, as those of the run's images
                vectors = [functional.normalize(each.float()) for each in features]
                coordinates = [vector @ basis for vector, basis in zip(vectors, bases, strict=True)]
            return torch.cat([probabilities, *coordinates], dim=1)

        return outputs


class _MasksInMemory:
    """PNG files by row."""

    def __init__(self, files: Mapping[int, bytes]) -> None:
        self._files = files

    def png(self, row: int) -> bytes:
        """The mask of a row as PNG bytes."""
        return self._files[row]


def _windows(lesions: Sequence[Lesion]) -> Windows:
    boxes = np.array([lesion.window for lesion in lesions], dtype=np.float32)
    return Windows(boxes[:, :2], boxes[:, 2:])


def _load_model(unit: Unit) -> Classifier:
    labels = unit.config.data.label_set()
    size, seed, channels = input_format_of(unit).size, unit.config.seed, unit.config.region.channels
    model = build_classifier(unit.config.model, size, len(labels), seed, "none", channels)
    load_fold_weights(model, unit, {"labels": ",".join(labels)})
    return model

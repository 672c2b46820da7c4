"""The task of a classifier: independent probabilities of labels, watched by the AUC of the headline label."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw, ImageOps
from torch.nn import functional
from torch.utils.tensorboard import SummaryWriter

from melanoma_dist.artifacts.features import FeatureSpace, write_features
from melanoma_dist.artifacts.integrity import write_weights_hash
from melanoma_dist.artifacts.predictions import WITHOUT_METADATA, predictions_table, write_predictions
from melanoma_dist.errors import TrainingError
from melanoma_dist.input.loader import EvaluationLoader, TrainingBatch
from melanoma_dist.input.samples import Samples
from melanoma_dist.models.classifier import Classifier, build_classifier
from melanoma_dist.storage import atomic
from melanoma_dist.train.clock import Clock
from melanoma_dist.train.events import Finishing, Note, Report
from melanoma_dist.train.fold_data import input_format_of, load_fold_data, loaders, validation_batch
from melanoma_dist.train.loss import MaskedLoss
from melanoma_dist.train.predict import Batch, Predictions
from melanoma_dist.train.step import TrainStep
from melanoma_dist.train.unit import Unit
from melanoma_dist.train.validation import Validation
from melanoma_dist.world import World

if TYPE_CHECKING:
    from melanoma_dist.metrics.validation import ValidationMetrics

MASK_RULE = "fourth channel, 0 (skin, or no trusted mask) to 1 (lesion)"
"""What the weights of a model that sees masks say of them."""
_EXAMPLES_PER_CLASS = 4
_TILE, _CAPTION = 192, 16  # pixels


class ClassificationTask:
    """Labels of images. Predictions are probabilities [n, L] of the validation images."""

    score_name = "AUC"

    def __init__(self, unit: Unit, world: World, report: Report, corrupt: Collection[str] = ()) -> None:
        """See ``build_task``. Raises DataError for another data set than the run was planned with."""
        self._unit, self._world, self._labels = unit, world, unit.config.data.label_set()
        self._report = report

        def note(text: str) -> None:
            report(Note(unit.fold, text))

        self._data = load_fold_data(unit, note, corrupt)
        self._training, self._validation = loaders(unit, self._data, world)
        self.steps = self._training.steps

    def batches(self, epoch: int, first: int) -> Iterator[TrainingBatch]:
        """Yield this rank's batches of an epoch, from step ``first`` on."""
        return self._training.epoch(epoch, first)

    def build_model(self, weights: str | None) -> Classifier:
        """Build the classifier at the input size of the unit."""
        config, size = self._unit.config, input_format_of(self._unit).size
        return build_classifier(config.model, size, len(self._labels), config.seed, weights, config.region.channels)

    def build_loss(self) -> MaskedLoss:
        """Build the loss, balanced by the labels of the training images."""
        return MaskedLoss(self._unit.config.loss, self._data.training.targets)

    def predict(self, train_step: TrainStep, tta: int = 1) -> Predictions:
        """Predict the probabilities of the validation images."""
        return train_step.predict(self._validation.batches, len(self._data.validation.rows), tta)

    def validate(self, predictions: Predictions) -> Validation:
        """Compute the metrics of all labels. The AUC exists: ``data.folds`` puts both kinds into every fold."""
        from melanoma_dist.metrics.validation import validation_metrics  # scikit-learn must not delay the first step

        targets, threshold = self._data.validation.targets, self._unit.config.threshold
        metrics = validation_metrics(targets, predictions, self._labels, threshold)
        score = metrics["labels"][self._labels.headline]["auc"]
        if score is None:
            label = self._labels.headline
            raise TrainingError(f"The validation images of {self._unit.name} do not define the AUC of {label}.")
        loss = self.build_loss().of_probabilities(predictions, targets)
        return Validation(score, loss, metrics)

    def draw(
        self, writer: SummaryWriter, step: int, validation: Validation, predictions: Predictions, new_best: bool
    ) -> None:
        """Draw each metric per label and as macro mean, and a precision-recall curve per label."""
        from melanoma_dist.metrics.validation import VALIDATION_METRICS

        metrics, targets = cast("ValidationMetrics", validation.metrics), self._data.validation.targets
        for row, entry in {"macro": metrics["macro"], **metrics["labels"]}.items():
            for name in VALIDATION_METRICS:
                if entry[name] is not None:
                    writer.add_scalar(f"validation_{name}/{row}", entry[name], step)
        for column, label in enumerate(self._labels):
            known = ~np.isnan(targets[:, column])
            if known.any():
                writer.add_pr_curve(f"validation/{label}", targets[known, column], predictions[known, column], step)
        if new_best:
            writer.add_image("validation/examples", self._examples(predictions), step, dataformats="HWC")

    def _examples(self, predictions: Predictions) -> npt.NDArray[np.uint8]:
        """Images with the headline label above others, always the same. Captions of correct calls are green."""
        samples, column = self._data.validation, self._labels.headline_column
        threshold = self._unit.config.threshold
        rows = []
        for truth in (True, False):
            members = np.flatnonzero(samples.targets[:, column] == truth)
            examples = members[np.linspace(0, len(members) - 1, _EXAMPLES_PER_CLASS).astype(int)]
            caption = self._labels.headline if truth else f"not {self._labels.headline}"
            tiles = [_tile(samples, int(i), predictions[i, column], truth, threshold, caption) for i in examples]
            rows.append(np.hstack(tiles))
        return np.vstack(rows)

    def weights_metadata(self, epoch: int) -> dict[str, str]:
        """Describe the weights of ``epoch`` (from 0): how to build the model and what to feed it."""
        model, expected = self._unit.config.model, input_format_of(self._unit)
        return {
            "backbone": model.backbone,
            "labels": ",".join(self._labels),
            "image_size": str(expected.size),
            "mean": ",".join(map(str, expected.mean)),
            "std": ",".join(map(str, expected.std)),
            "pooling": model.pooling,
            "hidden": str(model.hidden),
            "head_norm": model.head_norm,
            "metadata": model.metadata,
            "fusion": model.fusion,
            "fold": str(self._unit.fold),
            "epoch": str(epoch + 1),
            "data": self._unit.fingerprint,
            **({"mask": MASK_RULE} if self._unit.config.region.mask == "channel" else {}),
        }

    def finish(self, train_step: TrainStep, weights: Path) -> Callable[[], None]:
        """Predict the validation images, and compute the features of all images of the run.

        No trial of a sweep predicts other images: it needs no features.
        """
        self._report(Finishing(self._unit.fold, "predicting", 0.0))
        predictions, without = self._predictions(train_step)
        features = None if self._unit.reports_to_scheduler else self._features(train_step)
        return partial(self.write_result, weights, predictions, features, without)

    def _predictions(self, train_step: TrainStep) -> tuple[Predictions, Predictions | None]:
        """Predict the validation images, and for a model with metadata also as if all were unknown."""
        tta = self._unit.config.input.tta
        if self._data.validation.metadata is None:
            return self.predict(train_step, tta), None
        model = cast(Classifier, train_step.evaluation_model())

        def both(images: torch.Tensor, metadata: torch.Tensor) -> torch.Tensor:
            positions = model.feature_map(images)[0]
            logits = model.classify(positions, metadata), model.classify(positions)
            return torch.sigmoid(torch.cat([each.float() for each in logits], dim=1))

        count = len(self._data.validation.rows)
        predictions = train_step.predict(self._validation.batches, count, tta, both)
        return predictions[:, : len(self._labels)], predictions[:, len(self._labels) :]

    def _features(self, train_step: TrainStep) -> Predictions:
        """The features [n, C] of all images of the run, scaled to length 1; zeros for those excluded as corrupt."""
        unit, images = self._unit, self._data.run_images
        model = cast(Classifier, train_step.evaluation_model()).eval()
        loader = EvaluationLoader(
            images, input_format_of(unit), validation_batch(unit.config, self._world), self._world
        )
        features = train_step.collect(
            lambda batch: functional.normalize(model.features(batch).float()),
            self._reported(loader, "features", len(loader)),
            len(images.rows),
        )
        features[images.corrupt] = 0
        return features

    def _reported(self, batches: Iterable[Batch], what: str, count: int) -> Iterator[Batch]:
        """Yield batches and report how many of ``count`` are done."""
        clock = Clock(1)
        for done, batch in enumerate(batches):
            if done == 0 or clock.due():
                self._report(Finishing(self._unit.fold, what, done / count))
            yield batch

    def write_result(
        self, weights: Path, predictions: Predictions, features: Predictions | None, without: Predictions | None = None
    ) -> None:
        """Copy the weights below the run's ``model`` folder, then write their hash, features and predictions.

        ``without``: predictions of a model with metadata as if all were unknown.
        """
        unit, targets = self._unit, self._data.validation.targets
        unit.model.parent.mkdir(exist_ok=True)
        atomic.write_file(unit.model, lambda aside: shutil.copyfile(weights, aside))
        write_weights_hash(unit.folder, unit.model, atomic.sha256(weights))
        if features is not None:
            training = ~np.isin(self._data.run_images.rows, self._data.validation.rows)
            write_features(unit.folder, FeatureSpace.fit(features, training), unit.fingerprint)

        def write(values: Predictions, path: Path) -> None:
            images = self._data.validation_images()
            write_predictions(predictions_table(images, unit.fold, self._labels, values, targets), path)

        if without is not None:
            write(without, unit.folder / WITHOUT_METADATA)
        write(predictions, unit.predictions)


def _tile(
    samples: Samples, sample: int, probability: float, truth: bool, threshold: float, caption: str
) -> npt.NDArray[np.uint8]:
    jpeg = samples.encoded(np.array([sample]))[0]
    picture = Image.open(io.BytesIO(jpeg.tobytes())).convert("RGB")
    tile = Image.new("RGB", (_TILE, _TILE + _CAPTION), "white")
    tile.paste(ImageOps.fit(picture, (_TILE, _TILE)), (0, 0))
    colour = (0, 110, 40) if (probability >= threshold) == truth else (170, 0, 0)
    ImageDraw.Draw(tile).text((4, _TILE + 2), f"{caption}: {probability:.2f}", fill=colour)
    return np.asarray(tile)

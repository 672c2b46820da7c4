"""The task of a segmenter: the lesion's pixels, watched by the mean Jaccard index of the validation images.

Shapes: n validation images, b images of a batch, S pixels a side.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection, Iterator
from functools import partial
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch.utils.tensorboard import SummaryWriter

from melanoma_dist.artifacts.integrity import write_weights_hash
from melanoma_dist.artifacts.predictions import write_predictions
from melanoma_dist.config.segment import MaskLossConfig
from melanoma_dist.input.loader import EvaluationLoader, TrainingBatch, split_mask
from melanoma_dist.input.samples import MaskedSamples, Samples
from melanoma_dist.input.stream import EvaluationBatch
from melanoma_dist.metrics.segmentation import METRICS, boundary, overlap
from melanoma_dist.models.segmenter import Segmenter, build_segmenter
from melanoma_dist.storage import atomic
from melanoma_dist.train.clock import Clock
from melanoma_dist.train.events import Finishing, Note, Report
from melanoma_dist.train.fold_data import input_format_of, load_fold_data, loaders, validation_batch
from melanoma_dist.train.mask_loss import MaskLoss
from melanoma_dist.train.mask_predict import mask_probabilities, score_masks
from melanoma_dist.train.predict import Predictions
from melanoma_dist.train.step import TrainStep
from melanoma_dist.train.unit import Unit
from melanoma_dist.train.validation import Validation
from melanoma_dist.world import World

_COUNTS = 4  # pixels that are right and wrong, of lesion and skin; the loss follows
_EXAMPLES = 8
_SHOWN = ("jaccard", "thresholded_jaccard", "dice", "sensitivity", "specificity")


class SegmentationTask:
    """Masks of lesions. Predictions are counts of pixels and the loss, [n, 5], of the validation images."""

    score_name = "Jaccard"

    def __init__(self, unit: Unit, world: World, report: Report, corrupt: Collection[str] = ()) -> None:
        """See ``build_task``. Raises DataError for another data set than the run was planned with."""
        self._unit, self._world, self._report = unit, world, report

        def note(text: str) -> None:
            report(Note(unit.fold, text))

        self._data = load_fold_data(unit, note, corrupt)
        self._training, self._validation = loaders(unit, self._data, world)
        self._samples = cast(MaskedSamples, self._data.validation)
        self._loss = self.build_loss()
        self._examples: npt.NDArray[np.uint8] | None = None
        self.steps = self._training.steps

    def batches(self, epoch: int, first: int) -> Iterator[TrainingBatch]:
        """Yield this rank's batches of an epoch, from step ``first`` on."""
        return self._training.epoch(epoch, first)

    def build_model(self, weights: str | None) -> Segmenter:
        """Build the segmenter at the input size of the unit."""
        config = self._unit.config
        return build_segmenter(config.model, input_format_of(self._unit).size, config.seed, weights)

    def build_loss(self) -> MaskLoss:
        """Build the loss, which is one of images."""
        loss = cast(MaskLossConfig, self._unit.config.loss)
        return MaskLoss(loss.dice_weight, loss.tversky_weight)

    def predict(self, train_step: TrainStep, tta: int = 1) -> Predictions:
        """Compare the masks of the validation images with the true ones, at the size of the network's input.

        That size flatters a little; `finish` scores at the size of the images.
        """
        model = train_step.evaluation_model().eval()
        self._examples = None
        outputs = partial(self._compare, model, tta)
        return train_step.collect(outputs, self._validation, len(self._samples.rows))

    def _compare(self, model: torch.nn.Module, tta: int, batch: torch.Tensor) -> torch.Tensor:
        """Images and masks [b, 4, S, S] to true positives, false positives, false negatives, true negatives, loss."""
        images, masks = split_mask(batch)
        logits = torch.logit(mask_probabilities(model, images, tta)[:, None], eps=1e-7)
        predicted, truth = (logits >= self._cut).flatten(1), (masks >= 0.5).flatten(1)
        pairs = (truth & predicted, ~truth & predicted, truth & ~predicted, ~truth & ~predicted)
        counts = [where.sum(1).float() for where in pairs]
        if self._examples is None and self._world.is_main:
            self._examples = _tiles(images, masks, predicted)
        return torch.stack([*counts, self._loss.of_images(logits, masks)], dim=1)

    @property
    def _cut(self) -> float:
        """The logit of the threshold."""
        return float(np.log(self._unit.config.threshold / (1 - self._unit.config.threshold)))

    def validate(self, predictions: Predictions) -> Validation:
        """Compute the means over the validation images. Each image counts as much as another."""
        ratios = overlap(*predictions[:, :_COUNTS].T)
        metrics = {name: float(getattr(ratios, name).mean()) for name in _SHOWN}
        return Validation(metrics["jaccard"], float(predictions[:, _COUNTS].mean(dtype=np.float64)), metrics)

    def draw(
        self, writer: SummaryWriter, step: int, validation: Validation, predictions: Predictions, new_best: bool
    ) -> None:
        """Draw each metric, the Jaccard indices as a histogram, and a few images with both outlines."""
        for name, value in validation.metrics.items():
            writer.add_scalar(f"validation_{name}/lesion", cast(float, value), step)
        writer.add_histogram("validation/jaccard", overlap(*predictions[:, :_COUNTS].T).jaccard, step)
        if new_best and self._examples is not None:
            writer.add_image("validation/examples", self._examples, step, dataformats="HWC")

    def weights_metadata(self, epoch: int) -> dict[str, str]:
        """Describe the weights of ``epoch`` (from 0): how to build the model and what to feed it."""
        unit, expected = self._unit, input_format_of(self._unit)
        return {
            "task": unit.config.task,
            "encoder": unit.config.model.backbone,
            "image_size": str(expected.size),
            "mean": ",".join(map(str, expected.mean)),
            "std": ",".join(map(str, expected.std)),
            "threshold": str(unit.config.threshold),
            "fold": str(unit.fold),
            "epoch": str(epoch + 1),
            "data": unit.fingerprint,
        }

    def finish(self, train_step: TrainStep, weights: Path) -> Callable[[], None]:
        """Score the mask of each validation image at the size of the stored image."""
        unit = self._unit
        samples = Samples(self._samples.shards, self._samples.rows, self._samples.targets, self._samples.largest)
        loader = EvaluationLoader(
            samples, input_format_of(unit), validation_batch(unit.config, self._world), self._world
        )
        model = train_step.evaluation_model().eval()
        scores = train_step.collect(partial(self._score, model), self._with_samples(loader), len(samples.rows))
        return partial(self.write_result, weights, scores)

    def _with_samples(
        self, loader: EvaluationLoader
    ) -> Iterator[tuple[tuple[torch.Tensor, EvaluationBatch], EvaluationBatch]]:
        """Yield batches that know their samples, and report how many are done."""
        clock = Clock(1)
        for done, (images, batch) in enumerate(loader):
            if done == 0 or clock.due():
                self._report(Finishing(self._unit.fold, "scoring masks", done / len(loader)))
            yield (images, batch), batch

    def _score(self, model: torch.nn.Module, pair: tuple[torch.Tensor, EvaluationBatch]) -> torch.Tensor:
        """The scores of a batch's images, float64 [b, len(METRICS)], in the order of METRICS."""
        images, batch = pair
        config = self._unit.config
        probabilities = mask_probabilities(model, images, config.input.tta)
        truths = [self._samples.lesion(int(sample)) for sample in batch.samples[: batch.count]]
        scores = np.zeros((len(images), len(METRICS)))
        scores[: len(truths)] = score_masks(probabilities, truths, config.threshold)
        return torch.from_numpy(scores)

    def write_result(self, weights: Path, scores: Predictions) -> None:
        """Copy the weights below the run's ``model`` folder, then write their hash and the scores."""
        unit, images = self._unit, self._data.validation_images()
        unit.model.parent.mkdir(exist_ok=True)
        atomic.write_file(unit.model, lambda aside: shutil.copyfile(weights, aside))
        write_weights_hash(unit.folder, unit.model, atomic.sha256(weights))
        columns = {name: images[name].to_numpy() for name in ("image_id", "group")}
        table = pd.DataFrame({**columns, "fold": np.full(len(images), unit.fold, dtype=np.int32)})
        write_predictions(table.assign(**dict(zip(METRICS, scores.T, strict=True))), unit.predictions)


def _tiles(images: torch.Tensor, masks: torch.Tensor, predicted: torch.Tensor) -> npt.NDArray[np.uint8]:
    """The first images side by side: the true outline green, the predicted one red."""
    side = images.shape[-1]
    tiles = []
    for image, mask, answer in zip(images[:_EXAMPLES], masks[:_EXAMPLES], predicted[:_EXAMPLES], strict=True):
        pixels = image.float().cpu()
        pixels = (pixels - pixels.amin()) / (pixels.amax() - pixels.amin()).clamp(min=1e-6)
        tile = (255 * pixels.permute(1, 2, 0)).byte().numpy().copy()
        for outline, colour in (
            (mask[0].cpu().numpy() >= 0.5, (0, 200, 0)),
            (answer.view(side, side).cpu().numpy(), (220, 0, 0)),
        ):
            tile[boundary(outline)] = colour
        tiles.append(tile)
    return np.hstack(tiles)

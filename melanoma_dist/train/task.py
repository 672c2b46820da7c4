"""The seam between the training loop and what is learnt.

The loop knows epochs, steps, ranks, checkpoints and early stopping. A task knows the images, the model, the loss and
the metrics. To add one, write a module with a class that has the methods of ``Task``, and return it in ``build_task``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Protocol

from torch import nn
from torch.utils.tensorboard import SummaryWriter

from melanoma_dist.input.loader import TrainingBatch
from melanoma_dist.models.backbones import TrunkModel
from melanoma_dist.train.events import Report
from melanoma_dist.train.predict import Predictions
from melanoma_dist.train.step import TrainStep
from melanoma_dist.train.unit import Unit
from melanoma_dist.train.validation import Validation
from melanoma_dist.world import World


class Task(Protocol):
    """What a unit learns, on one rank."""

    score_name: str
    """Name of the score, for people, such as AUC."""
    steps: int
    """Steps of an epoch."""

    def batches(self, epoch: int, first: int) -> Iterator[TrainingBatch]:
        """Yield this rank's batches of an epoch, from step ``first`` on."""

    def build_model(self, weights: str | None) -> TrunkModel:
        """Build the model. ``weights`` replaces the configured ones; random parts depend on the seed alone."""

    def build_loss(self) -> nn.Module:
        """Build the loss, which maps outputs and targets to a scalar sum over the known targets."""

    def predict(self, train_step: TrainStep, tta: int = 1) -> Predictions:
        """Predict the validation images, the mean of ``tta`` orientations. Every rank calls it and gets all."""

    def validate(self, predictions: Predictions) -> Validation:
        """Compute score, loss and metrics of finite predictions. Only the main rank calls it."""

    def draw(
        self, writer: SummaryWriter, step: int, validation: Validation, predictions: Predictions, new_best: bool
    ) -> None:
        """Add a validation to TensorBoard: scalars and curves, and example images for a ``new_best``."""

    def weights_metadata(self, epoch: int) -> dict[str, str]:
        """Describe the weights of ``epoch`` (from 0): how to build the model and what to feed it."""

    def finish(self, train_step: TrainStep, weights: Path) -> Callable[[], None]:
        """Predict with the best weights, which are loaded. Every rank calls it.

        Returns what writes the result on the main rank: the file ``weights`` and its predictions, the predictions last:
        they mark a finished unit.
        """


def build_task(unit: Unit, world: World, report: Report, corrupt: Collection[str]) -> Task:
    """Build the task of a unit. The ids in ``corrupt`` are images not to train on; ``report`` takes its events."""
    # Each loads what only its own kind of training needs.
    if unit.config.task == "segmentation":
        from melanoma_dist.train.segmentation import SegmentationTask

        return SegmentationTask(unit, world, report, corrupt)
    from melanoma_dist.train.classification import ClassificationTask

    return ClassificationTask(unit, world, report, corrupt)

"""What is trained, on what: images through the graph or already on the device, our train_step, the kernels it uses."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from melanoma_dist.config.hardware import HardwareConfig
from melanoma_dist.config.model import ModelConfig
from melanoma_dist.config.run import Augmentation, InputConfig, RunConfig
from melanoma_dist.data.demo import demo_dataset
from melanoma_dist.data.labels import LABEL_SETS
from melanoma_dist.data.manifest import Dataset, load_dataset
from melanoma_dist.data.shards import ShardReader
from melanoma_dist.input.graph import InputFormat
from melanoma_dist.input.loader import TrainingBatch, TrainingLoader
from melanoma_dist.input.samples import Samples
from melanoma_dist.models.backbones import published_input
from melanoma_dist.models.classifier import build_classifier
from melanoma_dist.train.device import detect
from melanoma_dist.train.loss import MaskedLoss
from melanoma_dist.train.step import TrainStep
from melanoma_dist.train.step_graph import Recorder
from melanoma_dist.world import World
from on_gpu.settings import Settings
from on_gpu.speed import Step

MAIN_BACKBONE = "inceptionresnetv2"  # the one that what is tried on one backbone only is tried on
LABELS = len(LABEL_SETS["isic2019"])
_TIMES = 16
_RATE = 1e-4  # small: steps on noise must not diverge, for those that do are skipped


def as_in_a_run(settings: Settings) -> World:
    """Set this process up as a rank of a run is: deterministic kernels."""
    return detect(settings.gpu, settings.world.threads)


def fastest_kernels() -> None:
    """The usual settings where nothing has to be repeatable: whatever kernels are fastest."""
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.benchmark = True


def dataset(settings: Settings) -> Dataset:
    return load_dataset(settings.data or demo_dataset())


def samples(settings: Settings) -> Samples:
    """All images, with eight labels, each several times: an epoch of a few steps would be mostly its beginning."""
    prepared = dataset(settings)
    rows = np.tile(np.arange(len(prepared.manifest)), _TIMES)
    return Samples.of_rows(ShardReader(prepared), prepared.manifest, rows, LABEL_SETS["isic2019"])


def frame(backbone: str, settings: Settings) -> InputFormat:
    """The square that a backbone takes."""
    expected = published_input(backbone)
    return InputFormat(settings.size(backbone), expected.mean, expected.std)


def loader(images: Samples, backbone: str, policy: Augmentation, settings: Settings) -> TrainingLoader:
    return TrainingLoader(images, frame(backbone, settings), settings.batch_size, policy, False, 0, settings.world)


def endless(batches: TrainingLoader) -> Iterator[TrainingBatch]:
    """Epoch after epoch."""
    epoch = 0
    while True:
        yield from batches.epoch(epoch)
        epoch += 1


def train_step(
    backbone: str,
    settings: Settings,
    hardware: HardwareConfig,
    note: Callable[[str], object] = lambda text: None,
    recorder: Recorder | None = None,
) -> TrainStep:
    """Build the training step of a run; ``note`` and ``recorder`` as ``TrainStep`` takes them."""
    config = RunConfig(
        input=InputConfig(batch_size=settings.batch_size),
        model=ModelConfig(backbone=backbone, weights="none"),
        hardware=hardware,
    )
    model = build_classifier(config.model, settings.size(backbone), LABELS, seed=0)
    loss = MaskedLoss(config.loss, np.eye(LABELS, dtype=np.float32))
    result = TrainStep(model, loss, config, settings.world, note, recorder)
    result.begin_epoch(frozen=False)
    return result


def synthetic(size: int, settings: Settings, contiguous: bool = False) -> TrainingBatch:
    """Images that already lie on the device, in the layout that the graph gives them."""
    count = settings.batch_size
    drawn = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, size, size, generator=drawn).to(settings.device)
    images = images if contiguous else images.to(memory_format=torch.channels_last)
    labels = torch.eye(LABELS).repeat(-(-count // LABELS), 1)[:count].to(settings.device)
    return TrainingBatch(images, labels, np.arange(count), labels.numel())


def stepper(trained: TrainStep, batch: Callable[[], TrainingBatch]) -> Step:
    """A step of the train_step on the next batch."""
    number = 0

    def step() -> int:
        nonlocal number
        images = batch()
        trained.step(images, number, _RATE)
        number += 1
        return len(images.images)

    return step

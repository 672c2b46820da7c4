"""The configuration of a segmentation run: that of a classifier's run without what concerns labels alone.

The fields of a classifier that a segmenter does not have are no flags of ``segment``: tyro refuses what is suppressed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated

from tyro.conf import Suppress, arg

from melanoma_dist.config.metadata import FieldNames, Fusion
from melanoma_dist.config.model import HeadNorm, ModelConfig, Pooling
from melanoma_dist.config.region import RegionConfig
from melanoma_dist.config.rules import between, check
from melanoma_dist.config.run import (
    ClassWeights,
    DataConfig,
    InputConfig,
    Loss,
    LossConfig,
    Optimizer,
    OptimizerConfig,
    RunConfig,
    Schedule,
    ScheduleConfig,
    Task,
    Value,
)

_STRIDE = 32  # pixels: a U-Net halves its input five times
_SMALLEST = 64


@dataclass(frozen=True)
class MaskDataConfig(DataConfig):
    """Images with masks, and folds."""

    data: str | None = None
    """Prepared data set with masks: a folder from `data prepare`, or its URL (s3://, gs://).
    Default: MELANOMA_DIST_DATA, else data/prepared."""
    labels: Annotated[str, Suppress] = "isic2019"
    headline: Annotated[str | None, Suppress] = None


@dataclass(frozen=True)
class MaskInputConfig(InputConfig):
    """Image size, batches and augmentation."""

    image_size: int | None = 256
    """Side of the square input in pixels, 64 to 1024, a multiple of 32. Masks are scored at the size of their image."""
    balance: Annotated[bool, Suppress] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        size = self.image_size
        fits = size is not None and size >= _SMALLEST and size % _STRIDE == 0
        check(self, "image_size", fits, f"must be {_SMALLEST} to 1024, and a multiple of {_STRIDE}")


@dataclass(frozen=True)
class EncoderConfig(ModelConfig):
    """The segmenter: a U-Net on an encoder."""

    backbone: Annotated[str, arg(name="encoder", aliases=("--backbone",))] = "efficientnet_b3"
    """Any model of timm with feature maps, by the names that --backbone of a classifier takes."""
    pooling: Annotated[Pooling, Suppress] = "avg"
    hidden: Annotated[int, Suppress] = 0
    head_norm: Annotated[HeadNorm, Suppress] = "batch"
    dropout: Annotated[float, Suppress] = 0.2
    metadata: Annotated[FieldNames, Suppress] = "none"
    fusion: Annotated[Fusion, Suppress] = "concat"


@dataclass(frozen=True)
class MaskLossConfig(LossConfig):
    """The loss: binary cross-entropy of the pixels, Dice and focal Tversky of each image."""

    loss: Annotated[Loss, Suppress] = "bce"
    focal_gamma: Annotated[float, Suppress] = 2.0
    class_weights: Annotated[ClassWeights, Suppress] = "balanced"
    dice_weight: float = 0.5
    """Weight of the Dice loss, 0 to 1. The rest is that of the binary cross-entropy."""
    tversky_weight: float = 0.0
    """Weight of the focal Tversky loss, which counts missed lesion more than false lesion, 0 (none) to 1. The rest is
    that of Dice and cross-entropy together."""

    def __post_init__(self) -> None:
        super().__post_init__()
        between(self, "dice_weight", 0.0, 1.0)
        between(self, "tversky_weight", 0.0, 1.0)


@dataclass(frozen=True)
class MaskOptimizerConfig(OptimizerConfig):
    """The optimizer, its learning rates and its regularization."""

    optimizer: Annotated[Optimizer, arg(aliases=("--opt",))] = "adamw"
    """adam, adamw or sgd (Nesterov momentum 0.9)."""
    lr: float = 1e-3
    """Peak learning rate of the encoder, above 0 and at most 1."""
    head_lr_factor: float = 2.0
    """Learning rate of the decoder as a multiple of `lr`, above 0 and at most 1000."""
    freeze_epochs: int = 0
    """First epochs, in which only the decoder trains."""


@dataclass(frozen=True)
class MaskScheduleConfig(ScheduleConfig):
    """Epochs, learning rate schedule and early stopping."""

    schedule: Annotated[Schedule, arg(aliases=("--sched",))] = "onecycle"
    """onecycle (rise, then fall to almost zero), cosine, plateau (reduce the rate when the Jaccard stalls) or
    constant."""
    patience: int | None = None
    """Epochs without gain in the mean Jaccard of the validation before the fold stops early, at least 1.
    Default: 6; onecycle and cosine run to their end, because most of their gain comes there."""
    min_gain: float = 1e-4
    """Smallest increase of the Jaccard that counts as a gain, 0 to 0.5."""


@dataclass(frozen=True)
class SegmentConfig(RunConfig):
    """Train a U-Net over k folds to segment lesions, and report the masks of images that a fold has not seen."""

    task: Annotated[Task, Suppress] = "segmentation"
    seed: int = 0
    """Random seed of folds, decoder weights, sample order and augmentation, 0 to 4294967295."""
    threshold: float = 0.5
    """Probability from which a pixel counts as lesion, above 0 and below 1."""
    data: MaskDataConfig = field(default_factory=MaskDataConfig)
    input: MaskInputConfig = field(default_factory=MaskInputConfig)
    region: Annotated[RegionConfig, Suppress] = field(default_factory=RegionConfig)
    model: EncoderConfig = field(default_factory=EncoderConfig)
    loss: MaskLossConfig = field(default_factory=MaskLossConfig)
    optimizer: MaskOptimizerConfig = field(default_factory=MaskOptimizerConfig)
    schedule: MaskScheduleConfig = field(default_factory=MaskScheduleConfig)

    def identity(self) -> dict[str, Value]:
        """See ``RunConfig``. As in runs that are older than the field, a loss without weight is not in it."""
        without = {"loss.tversky_weight"} if self.loss.tversky_weight == 0.0 else set()
        return {key: value for key, value in super().identity().items() if key not in without}

    @property
    def score_name(self) -> str:
        """See ``RunConfig``: the mean over the validation images."""
        return "Jaccard"

    @property
    def score_in_words(self) -> str:
        """See ``RunConfig``."""
        return f"mean {self.score_name}"

"""The configuration of a run: frozen sections, each field with its help and its rule.

Field names are unique over all sections, because flags stand without their section: ``OptimizerConfig.lr`` is ``--lr``.
A search space names the same field ``optimizer.lr``.

``RunConfig.identity`` holds the fields that a result depends on. The hardware, the fault tolerance and the places of
folders are not part of it: the same run may train on other machines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Suppress, arg

from melanoma_dist.config.changes import NO_CHANGES, Changes, parse_changes, settle_changes
from melanoma_dist.config.fault_tolerance import FaultToleranceConfig
from melanoma_dist.config.hardware import HardwareConfig
from melanoma_dist.config.label_sets import LabelSet, default_headline, label_name, label_set
from melanoma_dist.config.model import ModelConfig
from melanoma_dist.config.region import RegionConfig
from melanoma_dist.config.rules import at_least, between, check, check_url, expand_home, optional_between, suppressed
from melanoma_dist.config.weights import GEOMETRY, is_keras
from melanoma_dist.errors import ConfigError

Augmentation = Literal["none", "light", "dermoscopy"]
Optimizer = Literal["adam", "adamw", "sgd"]
Schedule = Literal["plateau", "cosine", "onecycle", "constant"]
Loss = Literal["bce", "focal"]
Task = Literal["classification", "segmentation"]
Track = Literal["none", "mlflow", "wandb"]
ClassWeights = Literal["none", "balanced"]
MAX_ORIENTATIONS = 8
Value = str | int | float | bool | None
"""A plain value of a field."""


@dataclass(frozen=True)
class DataConfig:
    """Images, labels and folds."""

    data: str | None = None
    """Prepared data set: a folder from `data prepare`, its URL (s3://, gs://), or `demo` for synthetic images.
    Default: MELANOMA_DIST_DATA, else data/prepared."""
    labels: str = "isic2019"
    """Label set, such as isic2019 (8 labels), isic2018 (7), isic2017 (MEL, BKL) or melanoma (MEL), or labels with
    commas, such as MEL,NV,OTHER."""
    headline: str | None = None
    """Label whose AUC chooses epochs and configurations, and which leads every report.
    Default: MEL, or the only label of a set."""
    folds: int = 5
    """Cross-validation folds, 2 to 20. All images of a lesion are in one fold."""

    def __post_init__(self) -> None:
        expand_home(self, "data")
        self.label_set()
        between(self, "folds", 2, 20)
        check_url("data", self.data)

    def label_set(self) -> LabelSet:
        """The labels that the models answer, and the one that leads."""
        return label_set(self.labels, self.headline)


@dataclass(frozen=True)
class InputConfig:
    """Image size, batches and augmentation."""

    image_size: int | None = None
    """Side of the square input in pixels, 32 to 1024. Default: the backbone's own."""
    batch_size: Annotated[int, arg(aliases=("-b",))] = 32
    """Global batch: images per optimizer step over all ranks together, 2 to 65536."""
    augment: Augmentation = "light"
    """Augmentation of training images: none, light (crops, all eight orientations, mild colour) or dermoscopy (smaller
    crops, rotation, stronger colour)."""
    balance: bool = False
    """Sample training images with replacement, so that every combination of labels is equally frequent."""
    tta: int = 8
    """Test-time augmentation of final predictions: orientations to average, 1 (none) to 8 (all flips and turns)."""

    def __post_init__(self) -> None:
        optional_between(self, "image_size", 32, 1024)
        between(self, "batch_size", 2, 65536)
        between(self, "tta", 1, MAX_ORIENTATIONS)


@dataclass(frozen=True)
class LossConfig:
    """The loss and its weights against class imbalance. Unknown labels are masked."""

    loss: Loss = "bce"
    """bce (binary cross-entropy per label) or focal."""
    focal_gamma: float = 2.0
    """Focusing exponent of the focal loss, 0 to 10."""
    class_weights: ClassWeights = "balanced"
    """none, or balanced: equal total weight for the positives and the negatives of a label."""

    def __post_init__(self) -> None:
        between(self, "focal_gamma", 0.0, 10.0)


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer, its learning rates and its regularization."""

    optimizer: Annotated[Optimizer, arg(aliases=("--opt",))] = "adam"
    """adam, adamw or sgd (Nesterov momentum 0.9)."""
    lr: float = 3e-4
    """Peak learning rate of the trunk, above 0 and at most 1."""
    head_lr_factor: float = 3.0
    """Learning rate of the head as a multiple of `lr`, above 0 and at most 1000."""
    layer_decay: float = 1.0
    """Learning rate of a trunk stage as a share of the rate of the next stage, above 0 and at most 1 (1: equal)."""
    weight_decay: float = 0.0
    """Weight decay of matrices and kernels, 0 to 1. Biases and norms have none."""
    clip_norm: float = 1.0
    """Gradient norm to clip at, above 0; `inf` for no clipping."""
    accumulate: int = 1
    """Micro-batches per rank and step, 1 to 1024. More of them need less memory."""
    ema_decay: float = 0.0
    """Decay of the moving average (EMA) of the weights, which is validated and saved; 0 (off) up to but not 1."""
    freeze_epochs: int = 0
    """First epochs, in which only the head trains."""

    def __post_init__(self) -> None:
        check(self, "lr", 0.0 < self.lr <= 1.0, "must be above 0 and at most 1")
        check(self, "head_lr_factor", 0.0 < self.head_lr_factor <= 1000.0, "must be above 0 and at most 1000")
        check(self, "layer_decay", 0.0 < self.layer_decay <= 1.0, "must be above 0 and at most 1")
        between(self, "weight_decay", 0.0, 1.0)
        check(self, "clip_norm", self.clip_norm > 0.0, "must be above 0 (inf for no clipping)")
        between(self, "accumulate", 1, 1024)
        check(self, "ema_decay", 0.0 <= self.ema_decay < 1.0, "must be at least 0 and below 1")
        at_least(self, 0, "freeze_epochs")


@dataclass(frozen=True)
class ScheduleConfig:
    """Epochs, learning rate schedule and early stopping."""

    epochs: int = 30
    """Maximum epochs of a fold, 1 to 10000."""
    schedule: Annotated[Schedule, arg(aliases=("--sched",))] = "onecycle"
    """onecycle (rise, then fall to almost zero), cosine, plateau (reduce the rate when the AUC stalls) or constant."""
    warmup_epochs: float | None = None
    """Epochs of linear warm-up from zero, fractions allowed; for onecycle those of its rise.
    Default: 1, for onecycle 30 % of all."""
    plateau_patience: int = 2
    """Epochs without gain before the plateau schedule reduces the rate, at least 1."""
    plateau_factor: float = 0.3
    """Factor of that reduction, above 0 and below 1."""
    patience: int | None = None
    """Epochs without gain in the validation AUC of the headline label before the fold stops early, at least 1.
    Default: 6; onecycle and cosine run to their end, because most of their gain comes there."""
    min_gain: float = 1e-4
    """Smallest increase of the AUC that counts as a gain, 0 to 0.5."""
    changes: Changes = NO_CHANGES
    """Values that change during the training, as FIELD=VALUE@EPOCH: lr=1e-4@11 holds from epoch 11 on. Of lr,
    head_lr_factor, layer_decay, weight_decay, clip_norm and dropout; the schedule multiplies a changed rate too."""

    def __post_init__(self) -> None:
        between(self, "epochs", 1, 10000)
        object.__setattr__(self, "changes", settle_changes(self.changes, self.epochs))
        warmup = self.warmup_epochs
        rule = f"must be 0 to {self.epochs} (epochs)"
        check(self, "warmup_epochs", warmup is None or 0.0 <= warmup <= self.epochs, rule)
        at_least(self, 1, "plateau_patience", "patience")
        check(self, "plateau_factor", 0.0 < self.plateau_factor < 1.0, "must be above 0 and below 1")
        between(self, "min_gain", 0.0, 0.5)


@dataclass(frozen=True)
class RunConfig:
    """Train a backbone over k folds and report its out-of-fold predictions."""

    name: str | None = None
    """Name of the run and of its folder in RUNS. Default: built from the configuration."""
    runs: Path = Path("runs")
    """Folder of all runs. On a cluster, every node must reach it."""
    mirror: str | None = None
    """URL of a folder (`s3://BUCKET/RUNS`, `gs://BUCKET/RUNS`) for a copy of the run, kept up to date during training.
    If the local folder is lost or behind, re-running the command restores it from this copy."""
    track: Track = "none"
    """none, or an experiment tracker that gets parameters, metrics of epochs and results: mlflow or wandb."""
    seed: int = 0
    """Random seed of folds, head weights, sample order, augmentation and dropout, 0 to 4294967295."""
    task: Annotated[Task, Suppress] = "classification"  # the command decides: `config.segment` has the other
    repeats: int = 1
    """Trainings of the same folds, each with the next seed, 1 to 100. Separates seed variance from fold variance.
    The reported metrics are those of the first seed."""
    threshold: float = 0.5
    """Decision threshold: the probability from which an image counts as positive, above 0 and below 1."""
    data: DataConfig = field(default_factory=DataConfig)
    input: InputConfig = field(default_factory=InputConfig)
    region: RegionConfig = field(default_factory=RegionConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    fault_tolerance: FaultToleranceConfig = field(default_factory=FaultToleranceConfig)

    def __post_init__(self) -> None:
        expand_home(self, "runs")
        between(self, "seed", 0, 2**32 - 1)
        between(self, "repeats", 1, 100)
        check(self, "seed", self.seed + self.repeats <= 2**32, f"must leave room for --repeats {self.repeats}")
        check(self, "threshold", 0.0 < self.threshold < 1.0, "must be above 0 and below 1")
        bare = (self.name or "").translate(str.maketrans("", "", "-_."))
        safe = self.name is None or (len(self.name) <= 100 and bare.isalnum() and self.name[0] not in ".-")
        rule = "must be 1 to 100 letters, digits, '.', '-' and '_', and begin with neither '.' nor '-'"
        check(self, "name", safe, rule)
        check_url("mirror", self.mirror)
        plain = self.mirror is None or ("://" in self.mirror and "@" not in self.mirror)
        check(self, "mirror", plain, "must be a URL, such as s3://BUCKET/RUNS, with no user or password in it")
        most = self.schedule.epochs
        check(self.optimizer, "freeze_epochs", self.optimizer.freeze_epochs <= most, f"must not exceed --epochs {most}")
        for change in parse_changes(self.schedule.changes):
            section, _, name = change.key.partition(".")
            if name in suppressed(type(getattr(self, section))):
                raise ConfigError.of("changes", change, f"{name} is no field of this command", "Remove it.")
            try:
                self.at_epoch(change.epoch - 1)
            except ConfigError as error:
                raise ConfigError.of("changes", change, str(error).rstrip(".")) from None

    def at_epoch(self, epoch: int) -> RunConfig:
        """The configuration that ``epoch`` (from 0) trains with: the changes up to then are made, and none follow."""
        changes = parse_changes(self.schedule.changes)
        values = {change.key: change.value for change in changes if change.epoch <= epoch + 1}
        return with_values(self, {**values, "schedule.changes": NO_CHANGES}) if changes else self

    @property
    def score_name(self) -> str:
        """Name of the validation score that chooses epochs and configurations. The higher the better."""
        return "AUC"

    @property
    def score_in_words(self) -> str:
        """The score, and of what."""
        return f"{label_name(self.data.label_set().headline)} {self.score_name}"

    def identity(self) -> dict[str, Value]:
        """The dotted fields that a result depends on, with their values. Names of runs and resuming rely on it."""
        outside = ("name", "runs", "mirror", "track", "data.data", "region.lesions", "hardware.", "fault_tolerance.")
        inside = {key: value for key, value in dotted(self).items() if not key.startswith(outside)}
        labels = self.data.label_set()
        if labels.headline == default_headline(labels):  # as in runs that are older than the field
            inside["data.headline"] = None
        if is_keras(self.model.backbone):
            inside[GEOMETRY] = "keras"
        # JSON has no infinity.
        return {key: str(value) if value == math.inf else value for key, value in inside.items()}


def with_values(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """``config`` with other values of dotted fields (``optimizer.lr``). Raises ConfigError for a broken rule."""
    by_section: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        by_section.setdefault(section, {})[name] = value
    top = by_section.pop("", {})
    sections = {name: replace(getattr(config, name), **inner) for name, inner in by_section.items()}
    return replace(config, **top, **sections)


def dotted(config: RunConfig) -> dict[str, Value]:
    """A configuration as a flat mapping of plain values, ``{"optimizer.lr": 1e-4, ...}``."""
    flat: dict[str, Value] = {}
    for name, value in nested(config).items():
        if isinstance(value, dict):
            flat |= {f"{name}.{inner}": item for inner, item in value.items()}
        else:
            flat[name] = value
    return flat


def differences(config: RunConfig) -> dict[str, Value]:
    """The dotted fields whose values are not the defaults."""
    defaults = dotted(type(config)())
    return {key: value for key, value in dotted(config).items() if value != defaults[key]}


def nested(config: RunConfig) -> dict[str, Value | dict[str, Value]]:
    """A configuration as nested plain values, as a run saves it in YAML."""
    values = ((item.name, getattr(config, item.name)) for item in fields(config))
    return {name: _plain_fields(value) if is_dataclass(value) else _plain(value) for name, value in values}


def _plain_fields(section: Any) -> dict[str, Value]:
    return {item.name: _plain(getattr(section, item.name)) for item in fields(section)}


def _plain(value: Any) -> Value:
    return str(value) if isinstance(value, Path) else value

"""The configuration of a run: frozen sections, each field with its help and its rule.

Field names are unique over all sections, because on the command line they stand without their section:
``OptimizerConfig.lr`` is ``--lr``. A search space names it ``optimizer.lr``.

``RunConfig.identity`` is what a result depends on. ``HardwareConfig`` and the run's place are not part of it: the same
run may be trained on other machines.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

from melanoma_dist.config.hardware import HardwareConfig
from melanoma_dist.config.rules import between, check, check_url

LabelSet = Literal["isic2019", "isic2018", "isic2017", "melanoma"]
Augmentation = Literal["none", "light", "dermoscopy"]
Pooling = Literal["avg", "max", "avgmax", "gem"]
HeadNorm = Literal["batch", "none"]
Optimizer = Literal["adam", "adamw", "sgd"]
Schedule = Literal["plateau", "cosine", "onecycle", "constant"]
Loss = Literal["bce", "focal"]
ClassWeights = Literal["none", "balanced"]


@dataclass(frozen=True)
class DataConfig:
    """Which images, which labels, which folds."""

    data: str | None = None
    """Folder made by `data prepare`, its URL (s3://, gs://; every node keeps a copy), or `demo`: synthetic images."""
    labels: LabelSet = "isic2019"
    """Label set: isic2019 (8 labels), isic2018 (7), isic2017 (MEL, BKL) or melanoma (MEL)."""
    folds: int = 5
    """Number of cross-validation folds, 2 to 20. Whole lesions lie in one fold."""

    def __post_init__(self) -> None:
        between(self, "folds", 2, 20)
        check_url("data", self.data)


@dataclass(frozen=True)
class InputConfig:
    """How images become batches."""

    image_size: int | None = None
    """Side of the square input in pixels, 32 to 1024; the backbone's own where not given."""
    batch_size: int = 32
    """Images per optimizer step over all ranks together, 2 to 65536. It does not depend on the number of ranks."""
    augment: Augmentation = "dermoscopy"
    """Augmentation policy of training images: none, light (crop, flips, mild colour) or dermoscopy (rotation too)."""
    balance: bool = False
    """Draw training images so that each label set is drawn equally often, with replacement."""

    def __post_init__(self) -> None:
        if self.image_size is not None:
            between(self, "image_size", 32, 1024)
        between(self, "batch_size", 2, 65536)


@dataclass(frozen=True)
class ModelConfig:
    """The classifier: trunk, pooling, norm, ReLU, dropout, linear."""

    backbone: str = "inceptionresnetv2"
    """resnet152v2, inceptionv3, densenet201, inceptionresnetv2, or any name that timm knows."""
    weights: str = "imagenet"
    """imagenet (published weights), none (random start) or a file (.safetensors, or a state dict of PyTorch 1.6+)."""
    pooling: Pooling = "avg"
    """How the trunk's feature map becomes one vector: avg, max, avgmax (their mean) or gem."""
    hidden: int = 0
    """Width of a hidden layer before the norm, 0 for none, up to 8192."""
    head_norm: HeadNorm = "batch"
    """Norm of the pooled features: batch or none."""
    dropout: float = 0.2
    """Dropout before the last layer, 0 up to but not 1."""

    def __post_init__(self) -> None:
        between(self, "hidden", 0, 8192)
        check(self, "dropout", 0.0 <= self.dropout < 1.0, "must be at least 0 and below 1")


@dataclass(frozen=True)
class LossConfig:
    """The loss and its answer to imbalance. Unknown labels never count."""

    loss: Loss = "bce"
    """bce (binary cross-entropy per label) or focal."""
    focal_gamma: float = 2.0
    """Focusing exponent of the focal loss, 0 to 10."""
    class_weights: ClassWeights = "balanced"
    """none, or balanced: the positives and the negatives of a label weigh the same in sum."""

    def __post_init__(self) -> None:
        between(self, "focal_gamma", 0.0, 10.0)


@dataclass(frozen=True)
class OptimizerConfig:
    """The optimizer and its rates."""

    optimizer: Optimizer = "adam"
    """adam, adamw or sgd (Nesterov momentum 0.9)."""
    lr: float = 1e-4
    """Peak learning rate of the trunk, above 0 and at most 1."""
    head_lr_factor: float = 10.0
    """The head's learning rate is `lr` times this, above 0 and at most 1000."""
    layer_decay: float = 1.0
    """Each trunk stage learns at this factor of the stage above it, above 0 and at most 1 (1: all alike)."""
    weight_decay: float = 0.0
    """Weight decay of matrices and kernels (never of biases and norms), 0 to 1."""
    clip_norm: float = 1.0
    """Largest norm of the gradient, above 0; `inf` for no clipping."""
    accumulate: int = 1
    """Micro-batches that each rank cuts its share of a step into, 1 to 1024: more of them need less memory."""
    ema_decay: float = 0.0
    """Decay of the moving average of the weights that is validated and kept, 0 (off) up to but not 1."""
    freeze_epochs: int = 0
    """Epochs at the start that train the head alone."""

    def __post_init__(self) -> None:
        check(self, "lr", 0.0 < self.lr <= 1.0, "must be above 0 and at most 1")
        check(self, "head_lr_factor", 0.0 < self.head_lr_factor <= 1000.0, "must be above 0 and at most 1000")
        check(self, "layer_decay", 0.0 < self.layer_decay <= 1.0, "must be above 0 and at most 1")
        between(self, "weight_decay", 0.0, 1.0)
        check(self, "clip_norm", self.clip_norm > 0.0, "must be above 0 (inf for no clipping)")
        between(self, "accumulate", 1, 1024)
        check(self, "ema_decay", 0.0 <= self.ema_decay < 1.0, "must be at least 0 and below 1")
        check(self, "freeze_epochs", self.freeze_epochs >= 0, "must not be negative")


@dataclass(frozen=True)
class ScheduleConfig:
    """How long, and at which share of the learning rate."""

    epochs: int = 30
    """Most epochs of a fold, 1 to 10000."""
    schedule: Schedule = "plateau"
    """plateau (reduce when validation AUC stalls), cosine, onecycle or constant."""
    warmup_epochs: float = 1.0
    """Epochs of linear warm-up from zero, fractions allowed; onecycle has its own and takes this as its rise."""
    plateau_patience: int = 2
    """Epochs without gain before the rate is reduced."""
    plateau_factor: float = 0.3
    """What the rate is multiplied by then, above 0 and below 1."""
    patience: int = 6
    """Epochs without gain in validation melanoma AUC before the fold stops early."""
    min_gain: float = 1e-4
    """Smallest rise in AUC that counts as a gain, 0 to 0.5."""

    def __post_init__(self) -> None:
        between(self, "epochs", 1, 10000)
        check(self, "warmup_epochs", 0.0 <= self.warmup_epochs <= self.epochs, f"must be 0 to {self.epochs} (epochs)")
        check(self, "plateau_patience", self.plateau_patience >= 1, "must be at least 1")
        check(self, "plateau_factor", 0.0 < self.plateau_factor < 1.0, "must be above 0 and below 1")
        check(self, "patience", self.patience >= 1, "must be at least 1")
        between(self, "min_gain", 0.0, 0.5)


@dataclass(frozen=True)
class RunConfig:
    """Train k folds of a backbone and report what the folds predict for the images they did not train on."""

    name: str | None = None
    """Name of the run, a folder below --runs; made from the configuration where not given."""
    runs: Path = Path("runs")
    """Folder that holds the runs; on a cluster, one that every node can reach."""
    mirror: str | None = None
    """URL of a folder (`s3://BUCKET/RUNS`, `gs://BUCKET/RUNS`) that gets a copy of the run while it is trained; where
    the run's folder is lost or behind, the same command brings it back from there."""
    seed: int = 0
    """Seed of everything random: folds, weights of the head, order, augmentation, dropout; 0 to 4294967295."""
    repeats: int = 1
    """How often the same folds are trained, each time with the next seed, 1 to 100: tells the luck of a seed from the
    difficulty of a fold. Figures are those of the first."""
    threshold: float = 0.5
    """Probability from which an image counts as positive in precision and recall, above 0 and below 1."""
    data: DataConfig = field(default_factory=DataConfig)
    input: InputConfig = field(default_factory=InputConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    hardware: HardwareConfig = field(default_factory=HardwareConfig)

    def __post_init__(self) -> None:
        between(self, "seed", 0, 2**32 - 1)
        between(self, "repeats", 1, 100)
        check(self, "seed", self.seed + self.repeats <= 2**32, f"must leave room for --repeats {self.repeats}")
        check(self, "threshold", 0.0 < self.threshold < 1.0, "must be above 0 and below 1")
        safe = self.name is None or (
            len(self.name) <= 100
            and self.name.replace("-", "").replace("_", "").replace(".", "").isalnum()
            and self.name[0] not in ".-"
        )
        check(
            self, "name", safe, "must be 1 to 100 letters, digits, '.', '-' and '_', and begin with neither '.' nor '-'"
        )
        check_url("mirror", self.mirror)
        plain = self.mirror is None or ("://" in self.mirror and "@" not in self.mirror)
        check(self, "mirror", plain, "must be a URL, such as s3://BUCKET/RUNS, with no user or password in it")
        check(
            self,
            "freeze_epochs",
            self.optimizer.freeze_epochs <= self.schedule.epochs,
            f"must not exceed --epochs {self.schedule.epochs}",
            self.optimizer.freeze_epochs,
        )

    def identity(self) -> dict[str, Any]:
        """Every dotted field a result depends on, with its value."""
        outside = ("name", "runs", "mirror", "data.data", "hardware.")
        kept = {key: value for key, value in dotted(self).items() if not key.startswith(outside)}
        return {key: str(value) if value == math.inf else value for key, value in kept.items()}  # JSON has no infinity


def with_values(config: RunConfig, values: Mapping[str, Any]) -> RunConfig:
    """``config`` with other values of dotted fields (``optimizer.lr``). Raises ConfigError where a rule is broken."""
    changed: dict[str, Any] = {}
    for key, value in values.items():
        section, _, name = key.rpartition(".")
        changed.setdefault(section, {})[name] = value
    top = changed.pop("", {})
    return replace(config, **top, **{name: replace(getattr(config, name), **inner) for name, inner in changed.items()})


def dotted(config: Any, prefix: str = "") -> dict[str, Any]:
    """A configuration as a flat mapping of plain values, ``{"optimizer.lr": 1e-4, ...}``."""
    flat: dict[str, Any] = {}
    for item in fields(config):
        value = getattr(config, item.name)
        if is_dataclass(value):
            flat |= dotted(value, f"{prefix}{item.name}.")
        else:
            flat[prefix + item.name] = str(value) if isinstance(value, Path) else value
    return flat


def differences(config: RunConfig) -> dict[str, Any]:
    """The dotted fields whose values are not the defaults."""
    defaults = dotted(RunConfig())
    return {key: value for key, value in dotted(config).items() if value != defaults[key]}


def nested(config: RunConfig) -> dict[str, Any]:
    """A configuration as nested plain values, as it is saved in YAML."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(item) for key, item in value.items()}
        return str(value) if isinstance(value, Path) else value

    return {key: plain(value) for key, value in asdict(config).items()}

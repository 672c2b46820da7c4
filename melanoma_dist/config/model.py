"""The section of the model: backbone and weights, pooling, head, and metadata beside the image."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from melanoma_dist.config.metadata import FieldNames, Fusion, field_names
from melanoma_dist.config.rules import between, check, expand_home
from melanoma_dist.config.weights import find_weights
from melanoma_dist.errors import ConfigError

Pooling = Literal["avg", "max", "avgmax", "gem"]
HeadNorm = Literal["batch", "none"]
TrunkNorm = Literal["frozen", "batch"]


@dataclass(frozen=True)
class ModelConfig:
    """The classifier: trunk, pooling, norm, ReLU, dropout, linear."""

    backbone: Annotated[str, arg(aliases=("--model",))] = "inceptionresnetv2"
    """resnet152v2 (also 50 and 101), inceptionv3, densenet201, inceptionresnetv2, or any model of timm: NAME, NAME.TAG
    or timm/NAME."""
    weights: str = "imagenet"
    """imagenet (published weights), none (random), a file (.safetensors, a state dict of PyTorch 1.6+, or .h5 of
    Keras's ResNet V2) or a folder (of `weights fetch`, or a copy of a Hugging Face repository)."""
    trunk_norm: TrunkNorm = "frozen"
    """Statistics of the trunk's batch norms: frozen (those of the weights) or batch (of each batch, as after
    `--weights none` always)."""
    pooling: Pooling = "avg"
    """Pooling of the trunk's feature map: avg, max, avgmax (their mean) or gem."""
    hidden: int = 0
    """Width of a hidden layer before the norm, 0 (no such layer) to 8192."""
    head_norm: HeadNorm = "batch"
    """Norm of the pooled features: batch or none."""
    dropout: float = 0.2
    """Dropout before the last layer, at least 0 and below 1."""
    metadata: FieldNames = "none"
    """What the model is told of the patient beside the image: any of age, sex and site, or none. In training, each is
    left out at random, so that the same model answers without."""
    fusion: Fusion = "concat"
    """How metadata joins the image: concat (beside its features, before the last layer) or metablock (it scales and
    shifts the features)."""

    def __post_init__(self) -> None:
        # The names on model cards: hf_hub:timm/NAME. A run is the same under each of them.
        object.__setattr__(self, "backbone", re.sub(r"^(hf[-_]hub:)?timm/", "", self.backbone))
        expand_home(self, "weights")
        between(self, "hidden", 0, 8192)
        check(self, "dropout", 0.0 <= self.dropout < 1.0, "must be at least 0 and below 1")
        object.__setattr__(self, "metadata", ",".join(field_names(self.metadata)) or "none")
        if self.fusion != "concat" and self.metadata == "none":
            raise ConfigError.of("fusion", self.fusion, "joins metadata, and there is none", "Add --metadata age sex.")

    def weights_file(self) -> Path | None:
        """The file of weights, None for published or random ones. Raises ConfigError if it does not exist."""
        return None if self.weights in ("imagenet", "none") else find_weights(self.weights, self.backbone)

    def freezes_trunk_norms(self) -> bool:
        """Whether the trunk's batch norms keep their statistics. Those of a random start fit no image."""
        return self.trunk_norm == "frozen" and self.weights != "none"

"""What a recipe that is not the program's gets: images to train on, images to predict."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from melanoma_dist.data.labels import targets
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.data.shards import ShardReader

Floats = npt.NDArray[np.float32]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Task:
    """One training. Rows are those of the manifest."""

    dataset: Dataset
    labels: tuple[str, ...]
    backbone: str
    weights: Path
    image_size: int
    """Side of the input in pixels."""
    epochs: int
    seed: int
    device: str
    """PyTorch's name of the device."""
    training: Rows
    """Images to train on."""
    predicted: Rows
    """Images to predict, in the order of the predictions."""

    @cached_property
    def truth(self) -> Floats:
        """Targets [n, L] of the training images: 1, 0 or NaN (unknown)."""
        return targets(self.dataset.manifest.iloc[self.training], self.labels)

    @cached_property
    def shards(self) -> ShardReader:
        """The JPEG files."""
        return ShardReader(self.dataset)

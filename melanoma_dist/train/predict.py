"""Predicts images with a model, the same way for a validation and for new images.

Shapes: b images of a batch, S pixels a side, L outputs, n images to predict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from melanoma_dist.config.hardware import HardwareConfig
from melanoma_dist.errors import TrainingError
from melanoma_dist.input.graph import ORIENTATIONS, Orientation
from melanoma_dist.input.stream import EvaluationBatch
from melanoma_dist.train.collective import gather
from melanoma_dist.world import World

Model = TypeVar("Model", bound=nn.Module)
Predictions = npt.NDArray[np.float32]
"""Of all validation images, in the order of their rows: probabilities [n, L] of a classifier."""
Outputs = Callable[..., torch.Tensor]
"""What a model takes to float32 [b, X]: images [b, C, S, S], or whatever the batches hold for them, and metadata [b, F]
where a classifier takes them."""
Batch = tuple[Any, EvaluationBatch]
"""Images [b, C, S, S], or more that a task needs, and their samples."""
Batches = Callable[[Orientation], Iterable[Batch]]
"""The same batches in any orientation, as ``EvaluationLoader.batches`` yields them."""


def to_device(model: Model, world: World, hardware: HardwareConfig) -> Model:
    """Move the model to the rank's device, in the memory layout that its convolutions are fastest in."""
    channels_last = world.gpu is not None and hardware.channels_last
    layout = torch.channels_last if channels_last else torch.preserve_format
    return model.to(world.device).to(memory_format=layout)


def uses_amp(world: World, hardware: HardwareConfig) -> bool:
    """Tell whether the rank computes in bfloat16 where that is safe: on a GPU, with ``amp``."""
    return world.gpu is not None and hardware.amp


def autocast(amp: bool) -> torch.autocast:
    """The context of a forward pass, in bfloat16 with ``amp``."""
    return torch.autocast("cuda" if amp else "cpu", torch.bfloat16, enabled=amp)


def predict(
    model: nn.Module,
    batches: Batches,
    count: int,
    world: World,
    amp: bool,
    tta: int = 1,
    outputs: Outputs | None = None,
) -> Predictions:
    """Predict probabilities [n, L] of ``count`` samples: the mean over the first ``tta`` orientations of each image.

    ``model`` maps what it takes to logits [b, L]; ``outputs`` replaces its probabilities by others. Each sample is
    predicted exactly once per orientation, on one of the ranks; all get all predictions. The model stays in evaluation
    mode.
    """
    model.eval()
    outputs = outputs or probabilities_of(model)
    views = [collect(outputs, batches(view), count, world, amp) for view in ORIENTATIONS[:tta]]
    return mean_of_views(views)


def probabilities_of(model: nn.Module) -> Outputs:
    """What a model takes to probabilities [b, L]."""
    return lambda *inputs: torch.sigmoid(model(*inputs).float())


def inputs_of(images: torch.Tensor, batch: EvaluationBatch) -> tuple[torch.Tensor, ...]:
    """What a model takes of a batch: images, and metadata where the batch has them."""
    if batch.metadata is None:
        return (images,)
    return images, torch.from_numpy(batch.metadata).to(images.device, non_blocking=True)


def mean_of_views(views: Sequence[Predictions]) -> Predictions:
    """The mean of the probabilities [n, L] of all orientations."""
    return np.asarray(np.mean(views, axis=0, dtype=np.float64), dtype=np.float32)


def collect(outputs: Outputs, batches: Iterable[Batch], count: int, world: World, amp: bool) -> Predictions:
    """Collect what ``outputs`` computes of ``count`` samples, [n, X] in their order, on every rank.

    Each sample is computed exactly once, on one of the ranks. Raises TrainingError otherwise.
    """
    results: list[torch.Tensor] = []  # on the device: no batch waits for the one before
    samples: list[npt.NDArray[np.int64]] = []
    with torch.inference_mode():
        for images, batch in batches:
            with autocast(amp):
                result = outputs(*inputs_of(images, batch))
            results.append(result)
            counted = np.arange(len(batch.samples)) < batch.count  # the rest is padding
            samples.append(np.where(counted, batch.samples, -1))
    gathered, owners = gather(torch.cat(results).cpu().numpy(), world), gather(np.concatenate(samples), world)
    if not np.array_equal(np.sort(owners[owners >= 0]), np.arange(count)):
        raise TrainingError("An evaluation did not see each sample exactly once. This is a bug: please report it.")
    ordered = np.empty((count, *gathered.shape[1:]), dtype=gathered.dtype)
    ordered[owners[owners >= 0]] = gathered[owners >= 0]
    return ordered

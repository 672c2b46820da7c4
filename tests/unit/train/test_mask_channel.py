"""Training steps on images of four channels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from melanoma_dist.input.loader import TrainingBatch
from melanoma_dist.models.classifier import build_classifier
from melanoma_dist.train.loss import MaskedLoss
from melanoma_dist.train.step import TrainStep
from melanoma_dist.world import World

from ..samples import tiny
from .recorders import TapeRecorder
from .test_compile import graphs
from .test_step import TARGETS, batch

__all__ = ["graphs"]


def masked(number: int) -> TrainingBatch:
    plain = batch(number)
    mask = torch.rand(len(plain.images), 1, 32, 32, generator=torch.Generator().manual_seed(number)).round()
    return replace(plain, images=torch.cat([plain.images, mask], 1).contiguous(memory_format=torch.channels_last))


def trained(recorder: TapeRecorder | None = None, **values: Any) -> TrainStep:
    config = tiny(mask="channel", lesions="lesions", **values)
    model = build_classifier(config.model, 32, 8, config.seed, channels=config.region.channels)
    step = TrainStep(model, MaskedLoss(config.loss, TARGETS), config, World(), recorder=recorder)
    step.begin_epoch(frozen=False)
    for number in range(3):
        step.step(masked(number), number, 0.01)
    return step


def test_replayed_steps_have_the_bits_of_computed_ones_and_learn_from_masks() -> None:
    chosen = {"backbone": "test_resnet", "head_norm": "batch", "optimizer": "adam", "accumulate": 2}
    replayed, plain = trained(TapeRecorder(), **chosen), trained(**chosen)
    assert replayed.replays
    expected = plain.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in replayed.model.state_dict().items())
    [first] = [value for value in expected.values() if value.ndim == 4 and value.shape[1] == 4]
    assert first[:, 3].any()


def test_a_model_with_masks_is_compiled(graphs: list[int]) -> None:
    trained(compile=True)
    assert len(graphs) == 1

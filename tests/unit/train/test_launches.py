"""How many kernels a step launches, and that it never waits for the device."""

from __future__ import annotations

import numpy as np
import pytest
import timm
import torch
from timm.utils import ModelEmaV3
from torch import nn

from melanoma_dist.errors import ResumeError
from melanoma_dist.input.loader import TrainingBatch
from melanoma_dist.models.classifier import build_classifier
from melanoma_dist.train import gradients
from melanoma_dist.train.loss import MaskedLoss
from melanoma_dist.train.moving_average import MovingAverage
from melanoma_dist.train.step import TrainStep
from melanoma_dist.world import World

from ..samples import config, tiny
from .launches import LaunchCounter, multi_tensor_launches
from .test_non_finite import CHOICES
from .test_step import batch, snapshot, train, train_step

SIZES = {"resnet152v2": 64, "inceptionv3": 96, "densenet201": 64, "inceptionresnetv2": 96}
# With bfloat16 autocast, Adam and the moving average. More of them is a step back.
MOST = {"resnet152v2": 1694, "inceptionv3": 1013, "densenet201": 2106, "inceptionresnetv2": 2563}


def count_launches(backbone: str, monkeypatch: pytest.MonkeyPatch) -> LaunchCounter:
    """Count a step on the CPU, in bfloat16 as on a GPU. The number of kernels does not depend on sizes."""
    monkeypatch.setattr(gradients, "autocast", lambda amp: torch.autocast("cpu", torch.bfloat16))
    size, chosen = SIZES[backbone], config(backbone=backbone, weights="none", batch_size=2, gpus=0, ema_decay=0.99)
    model = build_classifier(chosen.model, size, 8, 0)
    step = TrainStep(model, MaskedLoss(chosen.loss, np.eye(8, dtype=np.float32)), chosen, World())
    step.begin_epoch(frozen=False)
    images, targets = torch.randn(2, 3, size, size), torch.eye(8)[:2]
    step.step(TrainingBatch(images, targets, np.arange(2), 16), 1, 1e-4)  # moments are made in the first step
    with LaunchCounter() as counter:
        step.step(TrainingBatch(images, targets, np.arange(2), 16), 2, 1e-4)
    return counter


@pytest.mark.parametrize("backbone", SIZES)
def test_a_step_launches_no_more_kernels_than_recorded(backbone: str, monkeypatch: pytest.MonkeyPatch) -> None:
    counter = count_launches(backbone, monkeypatch)
    assert not counter.waits
    assert counter.total <= MOST[backbone], counter.by_operation.most_common(12)


def test_launches_of_many_tensors_are_those_of_pytorch() -> None:
    assert multi_tensor_launches([], 1) == 0
    assert multi_tensor_launches([5, 0, 7], 4) == 1
    assert multi_tensor_launches([1] * 252, 4) == 1
    assert multi_tensor_launches([1] * 253, 4) == 2
    assert multi_tensor_launches([65536 * 2240], 2) == 1
    assert multi_tensor_launches([65536 * 2240 + 1, 1], 2) == 2


@pytest.mark.parametrize("accumulate", [1, 2])
def test_batch_norms_count_their_batches_as_pytorch_does(accumulate: int) -> None:
    step = train_step(tiny(accumulate=accumulate, **CHOICES))
    train(step, 0, 1, 2)
    counts = {key: int(value) for key, value in step.state_dict()["model"].items() if "num_batches_tracked" in key}
    assert len(counts) == sum(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in step.model.modules())
    assert set(counts.values()) == {3 * accumulate}
    train(step, 3, frozen=True)
    assert step.rank_state()["buffers"]["norm.num_batches_tracked"] == 4 * accumulate
    assert step.rank_state()["buffers"]["trunk.bn1.num_batches_tracked"] == 3 * accumulate


def test_counters_that_are_loaded_are_counted_on() -> None:
    first = train(train_step(tiny(ema_decay=0.9, **CHOICES)), 0, 1)
    second = train(train_step(tiny(ema_decay=0.9, **CHOICES)), 0, 1, 2, 3)
    second.load_state_dict(first.state_dict())
    second.load_rank_state(first.rank_state())
    state = train(second, 2).state_dict()
    assert state["model"]["norm.num_batches_tracked"] == state["average"]["norm.num_batches_tracked"] == 3


def test_timm_loads_the_trunk_of_a_state() -> None:
    model = train(train_step(tiny(**CHOICES)), 0).evaluation_model().state_dict()
    trunk = {key.removeprefix("trunk."): value for key, value in model.items() if key.startswith("trunk.")}
    timm.create_model("test_resnet", num_classes=0).load_state_dict(trunk, strict=True)


def test_the_moving_average_is_that_of_timm() -> None:
    step = train_step(tiny(**CHOICES))
    average, expected = MovingAverage(step.model, 0.9), ModelEmaV3(step.model, decay=0.9, use_warmup=True)
    step.begin_epoch(frozen=False)
    for number in range(4):
        step.step(batch(number), number, 0.01)
        average.update(number)
        step.evaluation_model()  # writes the counters
        expected.update(step.model, step=number)
    average.copy_integers()
    actual = snapshot(average.module)
    assert all(value.equal(actual[key]) for key, value in expected.module.state_dict().items())


def test_groups_of_another_version_are_refused_with_what_to_do() -> None:
    step = train_step(tiny(optimizer="adam", **CHOICES))
    state = train(step, 0).state_dict()
    groups = state["optimizer"]["param_groups"]
    first, *others = groups
    halves = [{**first, "params": first["params"][:1]}, {**first, "params": first["params"][1:]}]
    older = {**state, "optimizer": {**state["optimizer"], "param_groups": [*halves, *others]}}
    with pytest.raises(ResumeError, match=rf"has {len(groups) + 1} groups .* this version has {len(groups)}\. Finish"):
        step.load_state_dict(older)

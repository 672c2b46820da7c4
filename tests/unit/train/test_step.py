from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from melanoma_dist.config.run import RunConfig
from melanoma_dist.errors import TrainingError
from melanoma_dist.input.loader import TrainingBatch
from melanoma_dist.input.stream import evaluation_batches
from melanoma_dist.models.classifier import build_classifier
from melanoma_dist.train.loss import MaskedLoss
from melanoma_dist.train.optimizer import parameter_groups
from melanoma_dist.train.step import TrainStep
from melanoma_dist.world import World

from ..samples import tiny

RNG = np.random.default_rng(0)
TARGETS = RNG.choice([0, 1, np.nan], (40, 8), p=[0.6, 0.3, 0.1]).astype(np.float32)
IMAGES = torch.from_numpy(RNG.normal(size=(40, 3, 32, 32)).astype(np.float32))
State = dict[str, torch.Tensor]


def train_step(config: RunConfig) -> TrainStep:
    model = build_classifier(config.model, 32, 8, config.seed)
    return TrainStep(model, MaskedLoss(config.loss, TARGETS), config, World())


def batch(number: int) -> TrainingBatch:
    rows = np.arange(8 * number, 8 * number + 8) % 40
    known = int((~np.isnan(TARGETS[rows])).sum())
    return TrainingBatch(IMAGES[rows], torch.from_numpy(TARGETS[rows]), rows, known)


def train(step: TrainStep, *numbers: int, frozen: bool = False) -> TrainStep:
    step.begin_epoch(frozen)
    for number in numbers:
        step.step(batch(number), number, 0.01)
    return step


def snapshot(module: torch.nn.Module) -> State:
    return {key: value.clone() for key, value in module.state_dict().items()}


@pytest.mark.parametrize("backbone", ["test_vit", "test_convnext"])
def test_micro_batches_take_the_same_steps(backbone: str) -> None:
    whole, pieces = (train(train_step(tiny(backbone=backbone, accumulate=n)), 0, 1, 2) for n in (1, 4))
    initial = train_step(tiny(backbone=backbone)).model.state_dict()
    other = pieces.model.state_dict()
    for key, value in whole.model.state_dict().items():
        assert (value - other[key]).abs().max() < 1e-6, key
    assert any(not value.equal(whole.model.state_dict()[key]) for key, value in initial.items())
    assert whole.running_loss() == pytest.approx(pieces.running_loss(), rel=1e-5)


def test_the_norm_of_the_gradient_is_summed_before_clipping_and_changes_nothing() -> None:
    step = train_step(tiny(clip_norm=1e-3))
    step.begin_epoch(frozen=False)
    expected = 0.0
    for number in range(3):
        reference = train_step(tiny())
        reference.model.load_state_dict(step.model.state_dict())
        each = batch(number)
        (reference.loss(reference.model(each.images), each.targets) / each.known).backward()
        gradients = [parameter.grad.flatten() for parameter in reference.model.parameters()]  # type: ignore[union-attr]
        expected += float(torch.cat(gradients).norm())
        step.step(each, number, 0.01)
        assert step.gradient_norm() == pytest.approx(expected, rel=1e-5)
    other = train_step(tiny())
    other.load_rank_state(step.rank_state())
    assert other.gradient_norm() == step.gradient_norm()
    step.end_epoch()
    assert step.gradient_norm() == 0


def test_a_frozen_trunk_does_not_change_and_thaws() -> None:
    step = train_step(tiny(backbone="test_resnet", head_norm="batch", weight_decay=0.1, optimizer="adamw"))
    before = snapshot(step.model)
    after = snapshot(train(step, 0, 1, frozen=True).model)
    assert all(after[key].equal(value) for key, value in before.items() if key.startswith("trunk."))
    assert not after["linear.weight"].equal(before["linear.weight"])
    assert not after["norm.running_mean"].equal(before["norm.running_mean"])
    thawed = snapshot(train(step, 2, 3).model)
    changed = [key for key, value in after.items() if key.startswith("trunk.") and not thawed[key].equal(value)]
    assert any("running_mean" in key for key in changed)
    assert any(key.endswith("weight") for key in changed)


def test_the_moving_average_is_what_predicts() -> None:
    step = train(train_step(tiny(ema_decay=0.99, lr=0.1)), *range(6))
    assert step.average is not None
    batches = [(IMAGES[each.samples], each) for each in evaluation_batches(40, 16, 0, 1)]
    actual = step.predict(lambda view: batches, 40)
    with torch.inference_mode():
        averaged, latest = (torch.sigmoid(model.eval()(IMAGES)).numpy() for model in (step.average.module, step.model))
    assert np.abs(actual - averaged).max() < 1e-6
    assert np.abs(actual - latest).max() > 1e-4


def test_an_evaluation_that_misses_a_sample_is_refused() -> None:
    batches = [(IMAGES[each.samples], each) for each in evaluation_batches(40, 16, 0, 1)]
    with pytest.raises(TrainingError, match="exactly once"):
        train_step(tiny()).predict(lambda view: batches[:2], 40)
    with pytest.raises(TrainingError, match="exactly once"):
        train_step(tiny()).predict(lambda view: [*batches, batches[0]], 40)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_a_restored_step_continues_identically(optimizer: str) -> None:
    config = tiny(optimizer=optimizer, backbone="test_resnet", head_norm="batch", dropout=0.3, ema_decay=0.9)
    first = train(train_step(config), 0, 1, 2)
    saved = torch.utils._pytree.tree_map(lambda x: x.clone() if isinstance(x, torch.Tensor) else x, first.state_dict())
    expected = train(first, 3, 4).state_dict()
    other = train_step(config)
    other.load_state_dict(saved)
    actual = train(other, 3, 4).state_dict()
    for part in ("model", "average"):
        assert all(value.equal(actual[part][key]) for key, value in expected[part].items())


@pytest.mark.parametrize("pooling", ["avg", "gem"])
@pytest.mark.parametrize("backbone", ["test_resnet", "test_vit", "test_convnext", "mobilenetv3_small_050"])
def test_every_learnable_parameter_is_in_one_group_with_its_share(backbone: str, pooling: str) -> None:
    config = tiny(
        backbone=backbone,
        pooling=pooling,
        hidden=8,
        head_norm="batch",
        layer_decay=0.5,
        weight_decay=0.1,
        head_lr_factor=7.0,
    )
    model = build_classifier(config.model, 32, 8, 0)
    groups = parameter_groups(model, config.optimizer)
    grouped = [id(parameter) for group in groups for parameter in group["params"]]
    learnable = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert len(grouped) == len(set(grouped))
    assert set(grouped) == learnable
    actual: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        for group in groups:
            if any(parameter is each for each in group["params"]):
                actual[name] = group
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            group = actual[name]
            assert (group["factor"] == 7.0) == (not name.startswith("trunk."))
            assert group["weight_decay"] == 0 or parameter.ndim > 1
    shares = [group["factor"] for name, group in actual.items() if name.startswith("trunk.")]
    assert max(shares) == 1.0
    assert min(shares) < 0.6
    assert shares[0] == min(shares)  # the stem is the lowest layer
    assert any(group["weight_decay"] == 0.1 for group in groups)

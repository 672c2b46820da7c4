"""A step whose gradient is not finite leaves no trace: training continues as if it had never been computed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from melanoma_dist.errors import TrainingError
from melanoma_dist.input.loader import TrainingBatch
from melanoma_dist.models.classifier import build_classifier
from melanoma_dist.train.optimizer import Rates, build_optimizer, parameter_groups
from melanoma_dist.train.step import TrainStep

from ..samples import tiny
from .test_step import batch, train_step

CHOICES = {"backbone": "test_resnet", "head_norm": "batch", "dropout": 0.3, "weight_decay": 0.1}


def spoilt(number: int) -> TrainingBatch:
    """A batch with one pixel that is none."""
    images = batch(number).images.clone()
    images[3, 0, 0, 0] = torch.nan
    return replace(batch(number), images=images)


def state(step: TrainStep) -> dict[str, Any]:
    """All that a step changes, but for the number of batches that norms have seen, which nothing is computed from."""
    tensors = {"own": step.rank_state()["buffers"], "loss": torch.tensor(step.running_loss()), **step.state_dict()}
    return {key: value.clone() for key, value in flat(tensors).items() if not key.endswith("num_batches_tracked")}


def flat(tree: Any, name: str = "") -> dict[str, torch.Tensor]:
    if isinstance(tree, torch.Tensor):
        return {name: tree}
    pairs = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return {key: value for part, inner in pairs for key, value in flat(inner, f"{name}.{part}").items()}


@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("spoil_at", [0, 2])
def test_a_skipped_step_leaves_no_trace(optimizer: str, accumulate: int, spoil_at: int) -> None:
    step = train_step(tiny(optimizer=optimizer, accumulate=accumulate, **CHOICES))
    step.begin_epoch(frozen=False)
    for number in range(spoil_at):
        step.step(batch(number), number, 0.01)
    before = state(step)
    step.step(spoilt(spoil_at), spoil_at, 0.01)
    after = state(step)
    moments = {key for key in after if key.startswith(".optimizer")} - set(before)  # made in the first step
    assert all((after[key] == 0).all() for key in moments)
    assert all(after[key].equal(value) for key, value in before.items())
    assert step.skipped() == 1
    step.step(batch(spoil_at + 1), spoil_at + 1, 0.01)
    assert not state(step)[".model.linear.weight"].equal(before[".model.linear.weight"])


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_training_continues_as_if_the_skipped_step_had_not_been(optimizer: str) -> None:
    config = tiny(optimizer=optimizer, **{**CHOICES, "dropout": 0.0})
    with_it, without = train_step(config), train_step(config)
    for step, second in ((with_it, spoilt(9)), (without, None)):
        step.begin_epoch(frozen=False)
        step.step(batch(0), 0, 0.01)
        if second is not None:
            step.step(second, 1, 0.01)
        step.step(batch(2), 2, 0.01)
        step.step(batch(3), 3, 0.01)
    actual, expected = state(with_it), state(without)
    assert actual.keys() == expected.keys()
    assert all(actual[key].equal(value) for key, value in expected.items())


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd"])
def test_fused_optimizers_are_those_that_pytorch_documents(optimizer: str) -> None:
    """The same steps as of the plain loops over parameters, whose first momentum is the first gradient."""
    config = tiny(optimizer=optimizer, head_lr_factor=1.0, **CHOICES)
    models = [build_classifier(config.model, 32, 8, 0) for _ in range(2)]
    fused, groups = build_optimizer(models[0], config.optimizer), parameter_groups(models[1], config.optimizer)
    kinds = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}
    extra = {"momentum": 0.9, "nesterov": True} if optimizer == "sgd" else {}
    plain = kinds[optimizer](groups, lr=0.01, foreach=False, fused=False, **extra)
    rates = Rates(fused, "cpu")
    rates.set(0.01)
    rates.apply()
    for step in range(4):
        for model, each in zip(models, (fused, plain), strict=True):
            drawn = torch.Generator().manual_seed(step)
            for parameter in model.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=drawn)
            each.step()
    for fused_value, plain_value in zip(*(model.parameters() for model in models), strict=True):
        torch.testing.assert_close(fused_value, plain_value, rtol=1e-5, atol=1e-6)


def test_too_many_skipped_steps_of_an_epoch_end_it() -> None:
    step = train_step(tiny(max_skipped_steps=2))
    step.begin_epoch(frozen=False)
    for number in range(3):
        step.check_skipped()
        step.step(spoilt(number), number + 1, 0.01)
    with pytest.raises(TrainingError, match=r"3 steps of one epoch, lastly step 4, .*At most 2 .*max-skipped-steps"):
        step.check_skipped()
    step.end_epoch()
    step.check_skipped()
    step.step(batch(0), 4, 0.01)
    step.step(spoilt(1), 5, 0.01)
    with pytest.raises(TrainingError, match=r"At most 0"):
        step.check_skipped(most=0)


def test_a_long_epoch_ends_long_before_its_end() -> None:
    step = train_step(tiny(max_skipped_steps=10))
    step.begin_epoch(frozen=False)
    for number in range(1, 50):
        step.step(spoilt(number), number, 0.01)
    with pytest.raises(TrainingError, match="max-skipped-steps"):
        step.step(batch(50), 50, 0.01)


def test_a_restored_step_remembers_the_skipped_ones() -> None:
    first = train_step(tiny())
    first.begin_epoch(frozen=False)
    first.step(spoilt(0), 0, 0.01)
    second = train_step(tiny())
    second.load_rank_state(first.rank_state())
    assert second.skipped() == 1
    assert second.gradient_norm() == 0  # that of the skipped step is no number
    assert second.rank_state()["skipping"] == {"count": 1, "last": 0}

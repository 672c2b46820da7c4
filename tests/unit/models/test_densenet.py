from __future__ import annotations

import copy

import pytest
import timm
import torch
from torch import nn

from melanoma_dist.models.backbones import create_trunk
from melanoma_dist.models.densenet import ExtendingBlock, extend_concatenations


def small(drop_rate: float) -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("densenet121", num_classes=3, proj_drop_rate=drop_rate).train()


def trained(model: nn.Module, amp: bool) -> list[torch.Tensor]:
    """Outputs, gradients and statistics of a step."""
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16, enabled=amp):
        outputs = model(images)
    outputs.float().square().sum().backward()
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    return [outputs.detach(), *gradients, *model.buffers()]


@pytest.mark.parametrize(("amp", "drop_rate"), [(False, 0.0), (True, 0.0), (False, 0.3)])
def test_extended_concatenations_have_the_bits_of_timm(amp: bool, drop_rate: float) -> None:
    model = small(drop_rate)
    extended = copy.deepcopy(model)
    extend_concatenations(extended)
    expected, actual = trained(model, amp), trained(copy.deepcopy(extended), amp)
    assert len(actual) == len(expected) > 700
    assert all(ours.equal(theirs) for ours, theirs in zip(actual, expected, strict=True))


def test_the_trunks_of_this_program_extend_theirs() -> None:
    trunk, _ = create_trunk("densenet121", 64)
    assert sum(isinstance(module, ExtendingBlock) for module in trunk.modules()) == 4
    assert trunk.state_dict().keys() == timm.create_model("densenet121", num_classes=0).state_dict().keys()

"""The optimizer and its parameter groups: head and trunk at rates of their own, layer-wise decay through timm."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn

from melanoma_dist.config.run import OptimizerConfig
from melanoma_dist.models.backbones import TrunkModel


def parameter_groups(model: TrunkModel, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Groups with ``params``, ``weight_decay`` and ``factor``, the share of ``lr`` they learn at.

    The order is the same in every process, so that a saved optimizer fits again.
    """
    groups: list[dict[str, Any]] = param_groups_layer_decay(
        model.trunk, weight_decay=config.weight_decay, layer_decay=config.layer_decay, min_scale=0.0
    )
    for group in groups:
        group["factor"] = group.pop("lr_scale", 1.0)
        group.pop("param_names", None)
    # timm scales against its own classifier, which the trunk lacks: its last stage is to learn at the full rate.
    highest = max(group["factor"] for group in groups)
    for group in groups:
        group["factor"] /= highest
    head = param_groups_weight_decay(nn.ModuleList(model.head()), weight_decay=config.weight_decay)
    groups += [{**group, "factor": config.head_lr_factor} for group in head]
    return [group for group in groups if group["params"]]


def build_optimizer(model: TrunkModel, config: OptimizerConfig) -> torch.optim.Optimizer:
    """The configured optimizer over ``parameter_groups``, fused; rates are set by the schedule in every step."""
    groups = parameter_groups(model, config)
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, lr=config.lr, fused=True)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=config.lr, fused=True)
    optimizer = torch.optim.SGD(groups, lr=config.lr, momentum=0.9, nesterov=True, fused=True)
    # A momentum of zero is what a first step begins with; one that is skipped would leave whatever lay in the memory.
    for group in groups:
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def set_rates(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Give every group its share of ``rate``."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]

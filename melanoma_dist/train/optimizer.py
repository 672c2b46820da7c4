"""Builds the optimizer and its parameter groups: separate rates of head and trunk, layer-wise decay by timm."""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn

from melanoma_dist.config.run import OptimizerConfig
from melanoma_dist.models.backbones import TrunkModel


def parameter_groups(model: TrunkModel, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Group the parameters, each group with ``params``, ``weight_decay`` and ``factor``, its share of ``lr``.

    The order is the same in every process, so that a saved optimizer state fits.
    """
    groups: list[dict[str, Any]] = param_groups_layer_decay(
        model.trunk, weight_decay=config.weight_decay, layer_decay=config.layer_decay, min_scale=0.0
    )
    for group in groups:
        group["factor"] = group.pop("lr_scale", 1.0)
        group.pop("param_names", None)
    # timm scales relative to its own classifier. The trunk has none, and its last stage must learn at the full rate.
    highest = max(group["factor"] for group in groups)
    for group in groups:
        group["factor"] /= highest
    head = param_groups_weight_decay(nn.ModuleList(model.head()), weight_decay=config.weight_decay)
    groups += [{**group, "factor": config.head_lr_factor} for group in head]
    return [group for group in groups if group["params"]]


def build_optimizer(model: TrunkModel, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Build the configured optimizer, fused, over ``parameter_groups``. ``set_rates`` sets its rates in every step."""
    groups = parameter_groups(model, config)
    match config.optimizer:
        case "adam":
            return torch.optim.Adam(groups, lr=config.lr, fused=True)
        case "adamw":
            return torch.optim.AdamW(groups, lr=config.lr, fused=True)
        case "sgd":
            return _sgd(groups, config)


def _sgd(groups: list[dict[str, Any]], config: OptimizerConfig) -> torch.optim.SGD:
    optimizer = torch.optim.SGD(groups, lr=config.lr, momentum=0.9, nesterov=True, fused=True)
    # PyTorch allocates momentum in the first step. If that step is skipped, the buffer holds uninitialized memory.
    for group in groups:
        for parameter in group["params"]:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def set_rates(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the rate of every group to its share of ``rate``."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]

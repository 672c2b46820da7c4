"""Builds the optimizer, its parameter groups and their rates: separate for head and trunk, layer-wise decay by timm.

The rates lie on the device, where the fused kernels read them: a recorded step (``train.step_graph``) is replayed with
the rates of the moment.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn

from melanoma_dist.config.run import OptimizerConfig
from melanoma_dist.models.backbones import TrunkModel


def parameter_groups(model: TrunkModel, config: OptimizerConfig) -> list[dict[str, Any]]:
    """Group the parameters, each group with ``params``, ``weight_decay`` and ``factor``, its share of ``lr``.

    No two groups have the same decay and factor, because the optimizer launches its kernels for each group. The order
    is the same in every process, so that a saved optimizer state fits.
    """
    groups: list[dict[str, Any]] = param_groups_layer_decay(
        model.trunk, weight_decay=config.weight_decay, layer_decay=config.layer_decay, min_scale=0.0
    )
    # timm scales relative to its own classifier. The trunk has none, and its last stage must learn at the full rate.
    highest = max(group["lr_scale"] for group in groups)
    for group in groups:
        group["factor"] = group["lr_scale"] / highest
    head = param_groups_weight_decay(nn.ModuleList(model.head()), weight_decay=config.weight_decay)
    groups += [{**group, "factor": config.head_lr_factor} for group in head]
    # timm makes a group for each block of layers, also where all blocks learn at one rate.
    merged: dict[tuple[float, float], list[nn.Parameter]] = {}
    for group in groups:
        merged.setdefault((group["factor"], group["weight_decay"]), []).extend(group["params"])
    return [
        {"params": parameters, "factor": factor, "weight_decay": decay}
        for (factor, decay), parameters in merged.items()
        if parameters
    ]


def build_optimizer(model: TrunkModel, config: OptimizerConfig) -> torch.optim.Optimizer:
    """Build the configured optimizer, fused, over ``parameter_groups``. ``Rates`` sets its rates."""
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


class Rates:
    """The learning rates of an optimizer's groups, as tensors on its device."""

    def __init__(self, optimizer: torch.optim.Optimizer, device: str) -> None:
        """``optimizer`` must be a fused one, with a ``factor`` in each group."""
        self._optimizer = optimizer
        # The kernels of a GPU read float32. Those of the CPU read float64, and compute as with a number.
        kind = torch.float64 if device == "cpu" else torch.float32
        factors = [group["factor"] for group in optimizer.param_groups]
        self._factors = torch.tensor(factors, dtype=kind, device=device)
        self._rate = torch.zeros((), dtype=kind, device=device)
        self._rates = torch.zeros_like(self._factors)
        self.attach()

    def attach(self) -> None:
        """Let the optimizer read these rates; again after it has loaded a state, which replaces them."""
        for group, rate in zip(self._optimizer.param_groups, self._rates.unbind(), strict=True):
            group["lr"] = rate

    def set(self, rate: float) -> None:
        """Set the rate that the groups have shares of, for the next ``apply``."""
        self._rate.fill_(rate)

    def apply(self) -> None:
        """Give each group its share. Part of a recorded step."""
        torch.mul(self._factors, self._rate, out=self._rates)


def optimizer_state(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Return the optimizer's state dict with the rates as plain numbers."""
    state = optimizer.state_dict()
    groups = [{**group, "lr": float(group["lr"])} for group in state["param_groups"]]
    return {**state, "param_groups": groups}

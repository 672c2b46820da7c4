"""Trunks as folders for timm: ``config.json`` and ``model.safetensors``, as on Hugging Face.

``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import timm
import torch
from safetensors.torch import save_file
from torch import nn

from melanoma_dist.models.backbones import PublishedInput, create_trunk, timm_name

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def write_trunk(trunk: nn.Module, folder: Path, backbone: str, image_format: PublishedInput) -> None:
    """Write a trunk so that timm builds it again: its features, without a classifier.

    timm's own ``save_for_hf`` wrote the arguments that build a model only in later versions of those that this package
    allows, so they are written here.
    """
    name = timm_name(backbone)
    with torch.random.fork_rng(devices=[]):
        _, arguments = create_trunk(name, image_format.size)
    published: dict[str, Any] = cast(Any, trunk).pretrained_cfg
    fixed = bool(published.get("fixed_input_size"))
    if fixed:
        arguments["img_size"] = image_format.size
    size = (3, image_format.size, image_format.size)
    config = {
        "architecture": name.partition(".")[0],
        "num_classes": 0,
        "num_features": int(cast(Any, trunk).num_features),
        "model_args": arguments,
        "pretrained_cfg": {
            "tag": "melanoma_dist", "custom_load": False, "input_size": size, "mean": image_format.mean,
            "std": image_format.std, "interpolation": "bilinear", "crop_pct": 1.0, "crop_mode": "squash",
            "num_classes": 0, "fixed_input_size": fixed, "first_conv": published.get("first_conv"),
        },
    }  # fmt: skip
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n")
    tensors = {key: value.detach().clone().contiguous() for key, value in trunk.state_dict().items()}
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def read_trunk(folder: Path) -> nn.Module:
    """Let timm build the trunk of a folder, with its weights."""
    return cast(nn.Module, timm.create_model(f"local-dir:{folder}", pretrained=True)).eval()


def trunk_difference(trunk: nn.Module, other: nn.Module, image_size: int) -> float:
    """The largest difference of two trunks' features of the same random pixels."""
    images = torch.randn(2, 3, image_size, image_size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = [cast(Any, each).eval().forward_features(images) for each in (trunk, other)]
    return float((features[0] - features[1]).abs().max())

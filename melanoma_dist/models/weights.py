"""Weights from a file: safetensors, a state dict of PyTorch, under timm's names or this program's, or HDF5 of Keras."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import clean_state_dict
from torch import nn

from melanoma_dist.config.weights import CONFIG, KERAS_BACKBONES, architecture_beside
from melanoma_dist.errors import ConfigError
from melanoma_dist.models.keras_resnet import KerasResNetV2
from melanoma_dist.models.keras_weights import SUFFIXES, read_keras
from melanoma_dist.storage.tensors import load_tensors, require_finite

_CLASSIFIER_LAYERS = 2  # the most a published classifier has (a distilled transformer's two)
_NESTED = ("state_dict", "model")  # where checkpoints of timm, DeiT and torchvision keep the weights
_TRUNK = "trunk."  # of the names in files that this program wrote
_KERAS_BIAS, _PRE_ACTIVATION = "stem.conv.bias", "stages.0.blocks.0.norm1.weight"  # of a ResNet V2


def load_weights(trunk: nn.Module, path: Path, backbone: str) -> None:
    """Load a file into a trunk. Layers of a classifier are skipped; all others must fit exactly."""
    own = trunk.state_dict()
    state = _read_keras(trunk, path, backbone) if path.suffix in SUFFIXES else _read(path)
    _require_architecture(trunk, path)
    missing = [key for key in own if key not in state]
    wrong = [key for key in own if key in state and state[key].shape != own[key].shape]
    extra = {key.rsplit(".", 1)[0] for key in state if key not in own}
    if missing or wrong or len(extra) > _CLASSIFIER_LAYERS:
        detail = [f"{len(missing)} of {len(own)} tensors are missing ({', '.join(missing[:3])} ...)"] if missing else []
        detail += [f"{key} is {list(state[key].shape)} where {list(own[key].shape)} is needed" for key in wrong[:3]]
        detail += (
            [f"it holds layers unknown to the backbone ({', '.join(sorted(extra)[:3])} ...)"] if not detail else []
        )
        raise ConfigError.of("weights", path, f"does not fit {backbone}: " + "; ".join(detail), _remedy(own, state))
    try:
        trunk.load_state_dict({key: state[key] for key in own})
    except RuntimeError as error:  # tensors of the meta device, quantized or sparse ones
        raise ConfigError.of("weights", path, f"does not fit {backbone} ({first_line(error)})") from error
    try:
        require_finite(trunk.state_dict())
    except ValueError as error:
        raise ConfigError.of("weights", path, str(error), "They are the result of a failed training.") from error


def _remedy(own: Mapping[str, torch.Tensor], state: Mapping[str, torch.Tensor]) -> str:
    has_biases = _KERAS_BIAS in state
    if has_biases != (_KERAS_BIAS in own) and _PRE_ACTIVATION in own.keys() & state.keys():
        whose, name = ("Keras", "resnet152v2") if has_biases else ("timm", "resnetv2_152")
        return (
            f"The file is of the ResNet V2 of {whose} (such as --backbone {name}). Its strides are elsewhere: with the "
            "same numbers it computes another function."
        )
    return "Weights must be of the same backbone, under timm's parameter names."


def _require_architecture(trunk: nn.Module, path: Path) -> None:
    """Refuse a folder of another model. Some have the same tensors, such as efficientnet_b0 and tf_efficientnet_b0."""
    name, other = cast(Any, trunk).pretrained_cfg.get("architecture"), architecture_beside(path)
    if other is not None and name is not None and other != name:
        rule = f"is of {other}, as the {CONFIG} beside it says, and not of {name}"
        raise ConfigError.of("weights", path, rule, f"Type --backbone {other}, or name weights of {name}.")


def _read_keras(trunk: nn.Module, path: Path, backbone: str) -> dict[str, torch.Tensor]:
    if not isinstance(trunk, KerasResNetV2):
        remedy = f"Such files are for {', '.join(KERAS_BACKBONES)}."
        raise ConfigError.of("weights", path, f"is a file of Keras, and does not fit {backbone}", remedy)
    remedy = f"The file to take is {trunk.pretrained_cfg['url']}."
    return read_keras(path, trunk.state_dict(), remedy)


def _read(path: Path) -> dict[str, torch.Tensor]:
    try:
        if path.suffix == ".safetensors":
            return _trunk_alone(load_file(path))
        with torch.serialization.safe_globals([Namespace]):  # of plain values: the command line of timm and torchvision
            state = load_tensors(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ConfigError.of("weights", path, f"could not be read as weights ({first_line(error)})",
                             "Save the state dict alone, or use safetensors.") from error  # fmt: skip
    if isinstance(state, dict):
        state = next((state[key] for key in _NESTED if isinstance(state.get(key), dict)), state)
    if not isinstance(state, dict) or not all(map(_is_weight, state, state.values())):
        raise ConfigError.of("weights", path, "holds no state dict (names and tensors)")
    return _trunk_alone(clean_state_dict(state))


def _trunk_alone(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights under timm's names. A file of this program holds a trunk and the head upon it."""
    own = {key.removeprefix(_TRUNK): value for key, value in state.items() if key.startswith(_TRUNK)}
    return own or state


def _is_weight(name: object, value: object) -> bool:
    return isinstance(name, str) and isinstance(value, torch.Tensor)


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or the name of its class."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]

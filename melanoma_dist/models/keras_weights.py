"""Keras's files of weights for its ResNet V2: HDF5 in the layout that Keras had before version 3.

The root has an attribute ``layer_names``, each layer's group an attribute ``weight_names``, and each name leads to a
dataset. Names are bytes or text, with or without ``:0``. Lists above 64 KiB continue in ``layer_names0``, ``1``, ...
A whole saved model has all this in the group ``model_weights``. Kernels are HWIO in Keras, OIHW in PyTorch.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from melanoma_dist.errors import ConfigError

if TYPE_CHECKING:  # an optional package
    import h5py

SUFFIXES = (".h5", ".hdf5")
_CLASSIFIER = "predictions"
_LAYERS = {
    "norm1": "preact_bn", "conv1": "1_conv", "norm2": "1_bn", "conv2": "2_conv", "norm3": "2_bn", "conv3": "3_conv",
    "downsample.conv": "0_conv",
}  # fmt: skip
_OUTER = {"stem.conv": "conv1_conv", "norm": "post_bn"}
_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "moving_mean", "running_var": "moving_variance"}
_CONVOLUTION = {"weight": "kernel", "bias": "bias"}
_UNTRAINED = "num_batches_tracked"  # of PyTorch's batch norms alone
_BLOCK = re.compile(r"stages\.(\d+)\.blocks\.(\d+)\.(.+)")


def keras_name(key: str) -> str:
    """Keras's name of a tensor of `KerasResNetV2`: ``conv2_block1_1_conv/kernel``."""
    module, _, tensor = key.rpartition(".")
    if match := _BLOCK.fullmatch(module):
        layer = f"conv{int(match[1]) + 2}_block{int(match[2]) + 1}_{_LAYERS[match[3]]}"
    else:
        layer = _OUTER[module]
    return f"{layer}/{(_NORM if layer.endswith('_bn') else _CONVOLUTION)[tensor]}"


def read_keras(path: Path, own: Mapping[str, torch.Tensor], remedy: str) -> dict[str, torch.Tensor]:
    """Read the tensors of a trunk, whose state is ``own``. Keras's classifier is skipped, all else must fit exactly.

    Raises ConfigError, with ``remedy``, for a file that is not of this layout or of another model.
    """
    if find_spec("h5py") is None:
        install = "Type `pip install 'melanoma-dist[keras]'`."
        raise ConfigError.of("weights", path, "needs the package h5py, which is not installed", install)
    import h5py

    try:
        with h5py.File(path, "r") as file:
            stored = _datasets(file)
            _require_fit(stored, own)
            return {key: _tensor(stored, key, value) for key, value in own.items()}
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ConfigError.of("weights", path, f"could not be read as Keras's weights ({reason})", remedy) from error


def _datasets(file: h5py.File) -> dict[str, h5py.Dataset]:
    """All tensors of a file by ``layer/weight``."""
    root = file.get("model_weights", file)
    layers = _names(root, "layer_names")
    if not layers:
        keras_3 = "it is in the format *.weights.h5 of Keras 3, which names no layers"
        raise ValueError(keras_3 if "layers" in root else "it lists no layers")
    stored = {}
    for layer in layers:
        for name in _names(root[layer], "weight_names"):
            stored[f"{layer}/{name.rpartition('/')[2].partition(':')[0]}"] = root[layer][name]
    return stored


def _names(group: h5py.Group, attribute: str) -> list[str]:
    attributes: Mapping[str, Any] = group.attrs
    parts = [attributes[attribute]] if attribute in attributes else []
    while f"{attribute}{len(parts)}" in attributes:
        parts.append(attributes[f"{attribute}{len(parts)}"])
    return [name.decode() if isinstance(name, bytes) else str(name) for part in parts for name in part]


def _require_fit(stored: Mapping[str, h5py.Dataset], own: Mapping[str, torch.Tensor]) -> None:
    """Raise ValueError unless the file has every tensor in its shape, and nothing else."""
    needed = {keras_name(key): value for key, value in own.items() if not key.endswith(_UNTRAINED)}
    missing = [name for name in needed if name not in stored]
    if missing:
        raise ValueError(f"{len(missing)} of {len(needed)} tensors are missing: {', '.join(missing[:3])} ...")
    if other := sorted(name for name in stored if name not in needed and name.partition("/")[0] != _CLASSIFIER):
        raise ValueError(f"{len(other)} tensors are not of this backbone: {', '.join(other[:3])} ...")
    for name, value in needed.items():
        shape = tuple(value.shape if value.ndim == 1 else value.permute(2, 3, 1, 0).shape)
        if stored[name].shape != shape:  # compared before anything is read
            raise ValueError(f"{name} is {list(stored[name].shape)} where {list(shape)} is needed")


def _tensor(stored: Mapping[str, h5py.Dataset], key: str, own: torch.Tensor) -> torch.Tensor:
    if key.endswith(_UNTRAINED):
        return own
    values = np.asarray(stored[keras_name(key)], dtype=np.float32)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(3, 2, 0, 1) if values.ndim == 4 else values))

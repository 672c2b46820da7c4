"""ResNet V2 computes what Keras computes, and reads Keras's files of weights strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from benchmarks.keras_resnet import HEIGHT, random_images, random_tensor
from melanoma_dist.config.model import ModelConfig
from melanoma_dist.errors import ConfigError
from melanoma_dist.models.backbones import build_trunk, published_input
from melanoma_dist.models.classifier import build_classifier
from melanoma_dist.models.keras_weights import keras_name

GOLDEN = Path(__file__).with_name("resnet50v2_features.npy")
"""Pooled features of Keras's own ResNet50V2, written by `benchmarks/keras_resnet.py`."""


@pytest.fixture(scope="module")
def trunk() -> nn.Module:
    """A ResNet50V2 with the random tensors that Keras had."""
    model = build_trunk(ModelConfig("resnet50v2", "none"), HEIGHT).eval()
    model.load_state_dict({key: random_weight(key, value) for key, value in model.state_dict().items()})
    return model


def random_weight(key: str, value: torch.Tensor) -> torch.Tensor:
    if key.endswith("num_batches_tracked"):
        return value
    layer, _, weight = keras_name(key).partition("/")
    return torch.from_numpy(to_pytorch(random_tensor(layer, weight, keras_shape(value))))


def keras_shape(value: torch.Tensor) -> tuple[int, ...]:
    return tuple(value.shape if value.ndim == 1 else value.permute(2, 3, 1, 0).shape)


def to_pytorch(values: Any) -> Any:
    return np.ascontiguousarray(values.transpose(3, 2, 0, 1)) if values.ndim == 4 else values


def features(model: nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return model.forward_features(torch.from_numpy(random_images()).permute(0, 3, 1, 2))  # type: ignore[no-any-return, operator]


def test_features_are_those_of_keras(trunk: nn.Module) -> None:
    expected = torch.from_numpy(np.load(GOLDEN))
    assert expected.abs().max() > 0.5
    assert torch.allclose(features(trunk).mean((2, 3)), expected, rtol=0, atol=1e-5)


def test_the_model_of_timm_with_the_same_numbers_is_another_function(trunk: nn.Module) -> None:
    other = timm.create_model("resnetv2_50", num_classes=0, global_pool="").eval()
    state = trunk.state_dict()
    other.load_state_dict({key: state[key] for key in other.state_dict()})
    assert (features(trunk) - features(other)).abs().max() > 0.1


def test_names_in_any_case_and_the_published_input() -> None:
    assert published_input("ResNet152V2") == published_input("resnet101v2")
    assert published_input("resnet152v2").mean == published_input("resnet152v2").std == (0.5, 0.5, 0.5)


def test_batch_norms_have_the_settings_of_keras_and_freeze(tmp_path: Path, trunk: nn.Module) -> None:
    save_file(trunk.state_dict(), tmp_path / "w.safetensors")
    model = build_classifier(ModelConfig("resnet50v2", str(tmp_path / "w.safetensors")), HEIGHT, 2, seed=0).train()
    norms = [module for module in model.trunk.modules() if isinstance(module, nn.BatchNorm2d)]
    assert len(norms) == 49
    assert {(norm.eps, norm.momentum, norm.training) for norm in norms} == {(1.001e-5, 0.01, False)}


@pytest.mark.parametrize(("backbone", "timms"), [("resnet50v2", False), ("resnetv2_50", True)])
def test_weights_of_the_other_resnet_v2_are_refused(
    backbone: str, timms: bool, trunk: nn.Module, tmp_path: Path
) -> None:
    other = trunk if timms else timm.create_model("resnetv2_50")
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    with pytest.raises(ConfigError, match=rf"does not fit {backbone}.*computes another function"):
        build_trunk(ModelConfig(backbone, str(tmp_path / "other.safetensors")), HEIGHT)


# Files of Keras. The lock has no h5py: `pip install h5py` runs these.


@pytest.fixture
def keras_file(trunk: nn.Module, tmp_path: Path) -> Path:
    """A file as old versions of Keras wrote it, with the classifier."""
    h5py = pytest.importorskip("h5py")
    path = tmp_path / "weights.h5"
    tensors = {keras_name(key): value for key, value in trunk.state_dict().items() if not key.endswith("tracked")}
    layers = [*dict.fromkeys(name.partition("/")[0] for name in tensors), "predictions"]
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = np.array([*layers, "post_relu"], dtype="S")
        file.create_group("post_relu").attrs["weight_names"] = np.array([], dtype="S1")
        for layer in layers:
            own = {name: value for name, value in tensors.items() if name.startswith(f"{layer}/")}
            if layer == "predictions":
                own = {"predictions/kernel": torch.zeros(2048, 1000), "predictions/bias": torch.zeros(1000)}
            group = file.create_group(layer)
            group.attrs["weight_names"] = np.array([f"{name}:0" for name in own], dtype="S")
            for name, value in own.items():
                kernel = value.permute(2, 3, 1, 0) if value.ndim == 4 else value
                group[f"{name}:0"] = kernel.numpy()
    return path


def load(path: Path, backbone: str = "resnet50v2") -> nn.Module:
    return build_trunk(ModelConfig(backbone, str(path)), HEIGHT).eval()


def test_a_file_of_keras_fills_every_tensor(keras_file: Path, trunk: nn.Module) -> None:
    own, expected = load(keras_file).state_dict(), trunk.state_dict()
    assert own.keys() == expected.keys()
    assert all(torch.equal(own[key], value) for key, value in expected.items())


def test_names_of_keras_3_split_lists_and_whole_models(keras_file: Path, trunk: nn.Module) -> None:
    import h5py

    with h5py.File(keras_file, "a") as file:
        root = file.create_group("model_weights")
        layers = [name.decode() for name in file.attrs["layer_names"]]
        root.attrs["layer_names0"], root.attrs["layer_names1"] = layers[:100], layers[100:]
        for layer in layers:
            file.move(layer, f"model_weights/{layer}")
        del file.attrs["layer_names"]
    assert torch.equal(features(load(keras_file)), features(trunk))


def change(path: Path, kind: str) -> None:
    import h5py

    if kind == "truncated":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return
    if kind == "text":
        path.write_text("no weights")
        return
    with h5py.File(path, "w" if kind in ("foreign", "keras 3") else "a") as file:
        if kind == "foreign":
            file["data"] = np.zeros(3)
        elif kind == "keras 3":
            file["layers/conv2d/vars/0"] = np.zeros((7, 7, 3, 64))
        elif kind == "a layer too many":
            file.attrs["layer_names"] = [*file.attrs["layer_names"], b"dense"]
            file.create_group("dense").attrs["weight_names"] = [b"dense/kernel:0"]
            file["dense/dense/kernel:0"] = np.zeros((3, 3))
        elif kind == "a bias is missing":
            file["conv1_conv"].attrs["weight_names"] = [b"conv1_conv/kernel:0"]
        elif kind == "a shape":
            del file["post_bn/post_bn/beta:0"]
            file["post_bn/post_bn/beta:0"] = np.zeros(7)
        elif kind == "nan":
            file["post_bn/post_bn/beta:0"][3] = np.nan


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("truncated", "could not be read as Keras's weights"),
        ("text", "could not be read as Keras's weights"),
        ("foreign", r"it lists no layers.*The file to take is https://.*/resnet50v2_weights_tf_dim_\w+_notop\.h5"),
        ("keras 3", r"format \*\.weights\.h5 of Keras 3.*The file to take is https://"),
        ("a layer too many", "1 tensors are not of this backbone: dense/kernel"),
        ("a bias is missing", "1 of 270 tensors are missing: conv1_conv/bias"),
        ("a shape", r"post_bn/beta is \[7\] where \[2048\] is needed"),
        ("nan", "hold NaN or infinity"),
    ],
)
def test_another_file_is_refused(kind: str, complaint: str, keras_file: Path) -> None:
    change(keras_file, kind)
    with pytest.raises(ConfigError, match=complaint) as caught:
        load(keras_file)
    assert str(caught.value).startswith(f"--weights {keras_file}: ")


@pytest.mark.parametrize(
    ("backbone", "complaint"),
    [
        ("resnet101v2", r"\d+ of \d+ tensors are missing"),
        ("test_resnet", "is a file of Keras, and does not fit test_resnet"),
    ],
)
def test_a_file_of_keras_for_another_backbone(backbone: str, complaint: str, keras_file: Path) -> None:
    with pytest.raises(ConfigError, match=complaint):
        load(keras_file, backbone)

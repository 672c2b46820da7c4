from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers import SelectAdaptivePool2d

from melanoma_dist.config.model import ModelConfig
from melanoma_dist.errors import ConfigError
from melanoma_dist.models.backbones import build_trunk, check_backbone, published_input, timm_name
from melanoma_dist.models.classifier import Classifier, build_classifier

from ..hostile import fuzz_reader

IMAGES = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def classifier(size: int = 64, seed: int = 0, **values: Any) -> Classifier:
    config = ModelConfig(**{"backbone": "test_resnet", "weights": "none", **values})
    return build_classifier(config, size, 4, seed).eval()


def set_power(model: Classifier, power: float) -> None:
    assert model.gem is not None
    torch.nn.init.constant_(model.gem.power, power)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> tuple[torch.nn.Module, Path]:
    """A model of timm with its classifier, and the folder its state was saved in."""
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(5)
    model = timm.create_model("test_resnet").eval()
    save_file(model.state_dict(), folder / "good.safetensors")
    torch.save(model.state_dict(), folder / "good.pt")
    torch.save(
        {"state_dict": {f"module.{key}": value for key, value in model.state_dict().items()}}, folder / "nested.pt"
    )
    torch.save({"model": model.state_dict()}, folder / "deit.pth")
    options = Namespace(model="test_resnet", lr=0.1, opt_betas=None, workers=[4])
    torch.save({"model": model.state_dict(), "epoch": 3, "args": options}, folder / "torchvision.pth")
    compiled = {f"_orig_mod.{key}": value for key, value in model.state_dict().items()}
    torch.save({"arch": "test_resnet", "state_dict": compiled, "args": options, "version": 2}, folder / "timm.pth.tar")
    return model, folder


@pytest.mark.parametrize("pooling", ["avg", "max", "avgmax"])
def test_pooling_is_timms(pooling: Any) -> None:
    model = classifier(pooling=pooling)
    with torch.inference_mode():
        expected = SelectAdaptivePool2d(pool_type=pooling, flatten=True)(model.trunk.forward_features(IMAGES))
        assert torch.allclose(model.features(IMAGES), expected, atol=1e-6)


def test_gem_of_power_one_is_the_mean_and_of_a_high_power_the_maximum() -> None:
    model = classifier(pooling="gem")
    with torch.inference_mode():
        features = model.trunk.forward_features(IMAGES).clamp(min=1e-6).flatten(2)
        set_power(model, 1.0)
        assert torch.allclose(model.features(IMAGES), features.mean(2), atol=1e-5)
        set_power(model, 3.0)
        assert torch.allclose(model.features(IMAGES), features.pow(3).mean(2).pow(1 / 3), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("backbone", "axes"), [("test_vit", (1,)), ("test_mambaout", (1, 2))])
def test_tokens_and_channels_last_maps_are_pooled_over_positions(backbone: str, axes: tuple[int, ...]) -> None:
    model = classifier(backbone=backbone)
    with torch.inference_mode():
        features = model.trunk.forward_features(IMAGES)
        tokens = features[:, model.trunk.num_prefix_tokens :] if features.ndim == 3 else features
        assert torch.allclose(model.features(IMAGES), tokens.mean(axes), atol=1e-6)
        assert model(IMAGES).shape == (3, 4)


@pytest.mark.parametrize(
    ("name", "size"),
    [
        ("resnet152v2", 299),
        ("inceptionv3", 299),
        ("densenet201", 224),
        ("inceptionresnetv2", 299),
        ("test_resnet", 160),
    ],
)
def test_names_of_the_literature_have_their_input_sizes(name: str, size: int) -> None:
    assert timm.is_model(timm_name(name))
    assert published_input(name).size == size
    assert len(published_input(name).mean) == len(published_input(name).std) == 3


def test_an_unknown_backbone_is_told_its_neighbours() -> None:
    with pytest.raises(ConfigError, match=r"--backbone inceptionresnetv3: .*inceptionresnetv2"):
        timm_name("inceptionresnetv3")


def test_weights_that_nobody_published_are_told_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"no ImageNet weights are published for resnetv2_152.*Similar ones with weights: \w"
    ):
        build_trunk(ModelConfig("resnetv2_152", "imagenet"), 224)


@pytest.mark.parametrize(
    "file", ["good.safetensors", "good.pt", "nested.pt", "deit.pth", "torchvision.pth", "timm.pth.tar"]
)
def test_a_published_state_loads_without_its_classifier(published: tuple[Any, Path], file: str) -> None:
    theirs, folder = published
    model = classifier(weights=str(folder / file))
    with torch.inference_mode():
        features = theirs.forward_features(IMAGES)
        assert torch.equal(model.features(IMAGES), features.flatten(2).transpose(1, 2).mean(1))
        assert torch.allclose(model.features(IMAGES), SelectAdaptivePool2d(flatten=True)(features), atol=1e-6)


class Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("code ran",)


def bad_weights(kind: str, folder: Path, good: Path) -> Path:
    path = folder / ("bad.pt" if kind in ("code", "text", "no dict") else "bad.safetensors")
    if kind == "truncated":
        path.write_bytes(good.read_bytes()[:-1000])
    elif kind == "other backbone":
        save_file(timm.create_model("test_convnext").state_dict(), path)
    elif kind == "code":
        torch.save({"weight": Code()}, path)
    elif kind == "text":
        path.write_text("no weights")
    elif kind == "no dict":
        torch.save([1, 2], path)
    elif kind in ("nan", "inf"):
        state = load_file(good)
        state["layer3.0.conv2.weight"][0, 0] = float(kind)
        save_file(state, path)
    return path


@pytest.mark.parametrize(
    ("kind", "complaint"),
    [
        ("missing", "nor a file or folder that exists"),
        ("truncated", "could not be read as weights"),
        ("other backbone", "does not fit test_resnet"),
        ("code", "holds more than tensors and plain values"),
        ("text", "--weights"),
        ("no dict", "holds no state dict"),
        ("nan", "hold NaN or infinity: layer3.0.conv2.weight"),
        ("inf", "hold NaN or infinity: layer3.0.conv2.weight"),
    ],
)
def test_weights_that_do_not_serve_are_refused(
    kind: str, complaint: str, published: tuple[Any, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = bad_weights(kind, tmp_path, published[1] / "good.safetensors")
    with pytest.raises(ConfigError, match=complaint) as caught:
        build_trunk(ModelConfig("test_resnet", str(path)), 64)
    assert str(path) in str(caught.value)
    assert "code ran" not in capsys.readouterr().out


def test_the_head_depends_on_the_seed_alone(published: tuple[Any, Path]) -> None:
    loaded, fresh, other = classifier(weights=str(published[1] / "good.pt")), classifier(), classifier(seed=1)
    assert loaded.linear.weight.equal(fresh.linear.weight)
    assert not loaded.trunk.state_dict()["conv1.0.weight"].equal(fresh.trunk.state_dict()["conv1.0.weight"])
    assert not other.linear.weight.equal(fresh.linear.weight)


@pytest.mark.parametrize(
    ("backbone", "size", "larger"),
    [
        ("inception_v3", 70, 75),  # convolutions run out of pixels
        ("test_vit", 33, 48),  # patches do not cover the image; fails with images
        ("xcit_nano_12_p8_224", 100, 104),  # the same; fails when it is built
        ("levit_128s", 100, 112),  # attention biases of a fixed size
    ],
)
def test_an_image_size_that_a_backbone_cannot_take_is_told_the_next(backbone: str, size: int, larger: int) -> None:
    with pytest.raises(ConfigError, match=rf"^--image-size {size}: the backbone {backbone} cannot take it") as error:
        classifier(backbone=backbone, size=size)
    assert f"The smallest larger size that it can take is --image-size {larger}." in str(error.value)
    assert classifier(backbone=backbone, size=larger).features(torch.zeros(1, 3, larger, larger)).shape[0] == 1


@pytest.mark.parametrize("hidden", [0, 8])
@pytest.mark.parametrize("pooling", ["avg", "gem"])
def test_a_model_of_this_program_gives_its_trunk(pooling: Any, hidden: int, tmp_path: Path) -> None:
    before = classifier(pooling=pooling, hidden=hidden, seed=3)
    save_file(before.state_dict(), tmp_path / "fold-0.safetensors")
    after = classifier(weights=str(tmp_path / "fold-0.safetensors"))
    own = after.trunk.state_dict()
    assert all(value.equal(own[key]) for key, value in before.trunk.state_dict().items())
    assert after.linear.weight.equal(classifier().linear.weight)


@pytest.mark.parametrize(
    "written", ["test_resnet.r160_in1k", "timm/test_resnet.r160_in1k", "hf_hub:timm/test_resnet.r160_in1k",
                "hf-hub:timm/test_resnet.r160_in1k"],
)  # fmt: skip
def test_names_of_model_cards(written: str) -> None:
    config = ModelConfig(backbone=written, weights="none")
    assert config == ModelConfig(backbone="test_resnet.r160_in1k", weights="none")
    assert timm_name(config.backbone) == "test_resnet.r160_in1k"
    check_backbone(config.backbone, "imagenet")


def test_tags_of_literature_names_and_wrong_ones() -> None:
    assert timm_name("inceptionv3.tv_in1k") == "inception_v3.tv_in1k"
    with pytest.raises(ConfigError, match=r"has no weights tagged 'in2k'. Type one of: resnet18\.a1_in1k"):
        timm_name("resnet18.in2k")
    with pytest.raises(ConfigError, match="timm knows no such model"):
        timm_name(ModelConfig(backbone="hf_hub:someone/else").backbone)


@pytest.mark.parametrize("backbone", ["mobilenetv3_small_050", "test_resnet", "test_vit", "test_convnext"])
def test_every_parameter_that_learns_gets_a_gradient(backbone: str) -> None:
    model = classifier(backbone=backbone, pooling="gem", hidden=8).train()
    model(IMAGES).square().sum().backward()
    idle = [name for name, each in model.named_parameters() if each.requires_grad and each.grad is None]
    assert not idle
    still = [name for name, each in model.named_parameters() if not each.requires_grad]
    behind = {"mobilenetv3_small_050": "trunk.conv_head", "test_convnext": "trunk.head.norm"}
    assert {name.rpartition(".")[0] for name in still} == {behind[backbone]} if backbone in behind else not still


@pytest.mark.parametrize("backbone", ["test_resnet", "test_efficientnet"])
def test_frozen_norms_train_with_the_statistics_of_the_weights(backbone: str, tmp_path: Path) -> None:
    torch.manual_seed(2)
    published = timm.create_model(backbone).train()
    published(IMAGES)  # statistics that a random start does not have
    weights = tmp_path / "weights.safetensors"
    save_file(published.state_dict(), weights)
    expected = published.eval().forward_features(IMAGES)
    model = classifier(backbone=backbone, weights=str(weights), trunk_norm="frozen").train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    features = model.trunk.forward_features(IMAGES)
    assert torch.allclose(features, expected, atol=1e-5)
    model(IMAGES).sum().backward()
    changed = {key for key, value in model.state_dict().items() if not value.equal(before[key])}
    assert changed == {"norm.running_mean", "norm.running_var", "norm.num_batches_tracked"}
    assert all(parameter.grad is not None for parameter in model.parameters())  # their scale and shift learn


@pytest.mark.parametrize(("weights", "trunk_norm"), [("none", "frozen"), ("good.safetensors", "batch")])
def test_norms_that_are_not_frozen_follow_the_batches(
    weights: str, trunk_norm: str, published: tuple[Any, Path]
) -> None:
    file = weights if weights == "none" else str(published[1] / weights)
    model = classifier(weights=file, trunk_norm=trunk_norm).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model(IMAGES)
    assert all(not value.equal(before[key]) for key, value in model.state_dict().items() if "running_mean" in key)


def test_freezing_and_thawing_leave_alone_what_never_learns() -> None:
    model = classifier(backbone="mobilenetv3_small_050")
    before = {name: each.requires_grad for name, each in model.named_parameters()}
    model.freeze_trunk(True)
    assert not any(each.requires_grad for each in model.trunk.parameters())
    assert model.linear.weight.requires_grad
    model.freeze_trunk(False)
    assert {name: each.requires_grad for name, each in model.named_parameters()} == before


def test_a_damaged_file_of_weights_is_read_or_refused(published: tuple[Any, Path], tmp_path: Path) -> None:
    path = tmp_path / "damaged.safetensors"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        build_trunk(ModelConfig("test_resnet", str(path)), 64)

    fuzz_reader(read, (published[1] / "good.safetensors").read_bytes(), ConfigError, examples=20)


@pytest.mark.parametrize("wrong", ["names", "meta", "sparse"])
def test_tensors_that_are_no_weights_are_refused(wrong: str, published: tuple[Any, Path], tmp_path: Path) -> None:
    whole = published[0].state_dict()
    states: dict[str, dict[Any, torch.Tensor]] = {
        "names": {**whole, 1: torch.ones(1)},
        "meta": {key: value.to("meta") for key, value in whole.items()},
        "sparse": {key: value.to_sparse() for key, value in whole.items()},
    }
    torch.save(states[wrong], tmp_path / "odd.pt")
    with pytest.raises(ConfigError, match=r"holds no state dict|does not fit test_resnet|could not be read"):
        build_trunk(ModelConfig("test_resnet", str(tmp_path / "odd.pt")), 64)

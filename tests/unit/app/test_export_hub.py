"""The folder for Hugging Face: timm and this program load it again, and notice what was changed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import timm
import torch
import yaml
from safetensors.torch import load_file, save_file
from timm.models import build_model_with_cfg, register_model
from timm.models.resnet import BasicBlock, ResNet
from torch import nn

import melanoma_dist
from melanoma_dist.app.export.hub import _write_fold
from melanoma_dist.cli import main
from melanoma_dist.config.model import ModelConfig
from melanoma_dist.config.run import RunConfig
from melanoma_dist.errors import DataError, MelanomaDistError
from melanoma_dist.models.backbones import PublishedInput, build_trunk
from melanoma_dist.models.classifier import build_classifier
from melanoma_dist.models.hub import read_trunk, trunk_difference, write_trunk

from .test_export import hashes
from .test_predict import new_photograph


@pytest.fixture(scope="module")
def hub(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("hub") / "hub"
    assert main(["export", str(finished), "--format", "hub", "--out", str(out), "--decode-threads", "1"]) == 0
    return out


def test_this_program_predicts_from_the_folder_to_the_bit(hub: Path, finished: Path, tmp_path: Path) -> None:
    files = [new_photograph(tmp_path / f"{number}.jpg", number) for number in range(3)]
    expected = melanoma_dist.load_run(finished).ensemble(threads=1).predict(files)
    moved = Path(shutil.copytree(hub, tmp_path / "moved"))
    answers = melanoma_dist.load_hub(moved, threads=1).predict(files)
    np.testing.assert_array_equal(answers.calibrated, expected.calibrated)
    np.testing.assert_array_equal(answers.positive, expected.positive)
    assert answers.labels == expected.labels


def test_timm_builds_the_trunk_that_was_trained(hub: Path, finished: Path) -> None:
    ensemble = melanoma_dist.load_run(finished).ensemble(threads=1)
    images = torch.randn(2, 3, 64, 64)
    for fold in (0, 1):
        trunk = timm.create_model(f"local-dir:{hub}/fold-{fold}", pretrained=True).eval()
        own = ensemble.fold_model(fold).trunk.eval()
        with torch.no_grad():
            assert torch.equal(trunk.forward_features(images), own.forward_features(images))
    assert tuple(trunk.pretrained_cfg["mean"]) == timm.create_model("test_resnet").pretrained_cfg["mean"]


def test_a_backbone_that_timm_cannot_build_and_one_that_meant_another_model(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "run"))
    config, record = (run / "config.yaml"), json.loads((run / "record.json").read_text())
    config.write_text(config.read_text().replace("backbone: test_resnet", "backbone: resnet152v2"))
    record["identity"]["model.backbone"] = "resnet152v2"
    (run / "record.json").write_text(json.dumps(record))
    assert main(["export", str(run), "--format", "hub"]) == 2
    assert "was trained when resnet152v2 meant a model of timm" in capsys.readouterr().err
    record["identity"]["model.geometry"] = "keras"
    (run / "record.json").write_text(json.dumps(record))
    assert main(["export", str(run), "--format", "hub"]) == 2
    assert "--format hub: is for timm, which cannot build resnet152v2" in capsys.readouterr().err


def test_a_training_starts_from_the_weights_of_a_fold(hub: Path) -> None:
    file = hub / "fold-1/model.safetensors"
    trunk = build_trunk(ModelConfig("test_resnet", str(file)), 64)
    written = load_file(file)
    assert written
    assert all(torch.equal(value, written[name]) for name, value in trunk.state_dict().items())


@pytest.mark.parametrize(
    ("backbone", "size"), [("test_vit", 96), ("test_vit", 160), ("test_convnext", 64), ("test_resnet", 64)]
)
def test_trunks_of_other_kinds_and_sizes_come_back(backbone: str, size: int, tmp_path: Path) -> None:
    trunk = build_trunk(ModelConfig(backbone, "none"), size)
    write_trunk(trunk, tmp_path, backbone, PublishedInput(size, (0.5,) * 3, (0.5,) * 3))
    assert trunk_difference(trunk, read_trunk(tmp_path), size) == 0
    assert trunk_difference(build_trunk(ModelConfig(backbone, "none"), size), read_trunk(tmp_path), size) > 0


def test_the_card_has_the_header_of_hugging_face_and_no_folder_of_the_machine(hub: Path, finished: Path) -> None:
    _, header, card = (hub / "README.md").read_text().split("---\n", 2)
    about = yaml.safe_load(header)
    assert about["license"] == "cc0-1.0"
    assert about["pipeline_tag"] == "image-classification"
    assert "load_hub" in card
    assert json.loads((hub / "manifest.json").read_text())["files"] == hashes(hub)
    texts = [path.read_text() for path in hub.rglob("*") if path.suffix in (".json", ".yaml", ".md", ".txt", ".jsonl")]
    assert not any(str(finished.parents[1]) in text for text in texts)


@pytest.mark.parametrize(
    "name", ["config.yaml", "decision_rules.json", "fold-0/model.safetensors", "fold-1/head.safetensors"]
)
def test_a_changed_or_missing_file_is_refused(name: str, hub: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(hub, tmp_path / "hub"))
    (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    with pytest.raises(DataError, match="is not the file that was exported"):
        melanoma_dist.load_hub(folder)
    (folder / name).unlink()
    with pytest.raises(DataError, match="cannot be read"):
        melanoma_dist.load_hub(folder)


def test_weights_of_another_model_are_refused(hub: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(hub, tmp_path / "hub"))
    file = folder / "fold-0/head.safetensors"
    tensors = load_file(file)
    save_file({name: value for name, value in tensors.items() if "linear" not in name}, file)
    about = json.loads((folder / "config.json").read_text())
    about["files"]["fold-0/head.safetensors"] = hashes(folder)["fold-0/head.safetensors"]
    (folder / "config.json").write_text(json.dumps(about))
    ensemble = melanoma_dist.load_hub(folder)
    with pytest.raises(DataError, match="corrupt, or of another model"):
        ensemble.fold_model(0)
    (folder / "config.json").write_text(json.dumps(about | {"schema": 9}))
    with pytest.raises(DataError, match="has schema 9"):
        melanoma_dist.load_hub(folder)


def _foreign(
    name: str, change: Callable[[torch.Tensor], torch.Tensor], prefix: str, options: dict[str, Any]
) -> nn.Module:
    """A backbone of another package whose reader of weights expects its own published files."""
    pretrained = options.pop("pretrained", False)

    def read(state: dict[str, torch.Tensor], _: nn.Module) -> dict[str, torch.Tensor]:
        return {prefix + key: change(value) for key, value in state.items()}

    return cast(nn.Module, build_model_with_cfg(
        ResNet, name, pretrained, pretrained_filter_fn=read, block=BasicBlock, layers=(1, 1, 1, 1), **options,
    ))  # fmt: skip


@register_model
def foreign_names_resnet(**options: Any) -> nn.Module:
    return _foreign("foreign_names_resnet", lambda value: value, "encoder.", options)


@register_model
def foreign_scale_resnet(**options: Any) -> nn.Module:
    return _foreign("foreign_scale_resnet", lambda value: value * 2, "", options)


@pytest.mark.parametrize(
    ("backbone", "reason"),
    [("foreign_names_resnet", "Missing key"), ("foreign_scale_resnet", "a feature differs by ")],
)
def test_a_trunk_that_timm_does_not_build_again_is_refused(backbone: str, reason: str, tmp_path: Path) -> None:
    config = RunConfig(model=ModelConfig(backbone, "none"))
    model = build_classifier(config.model, 64, 2, 0)
    with pytest.raises(MelanomaDistError) as refused:
        _write_fold(model, config, tmp_path, 64)
    message = str(refused.value)
    assert message.startswith(f"--format hub: timm does not build the trunk of {backbone} again from its files (")
    assert reason in message
    assert message.endswith("No file was kept. Type --format onnx or --format torch.")

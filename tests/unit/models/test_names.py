"""Names read from timm's source files are those that timm itself knows."""

from __future__ import annotations

import importlib.machinery
import subprocess
import sys
from pathlib import Path

import pytest
import timm
from timm.models import _registry

from melanoma_dist.config.weights import KERAS_BACKBONES
from melanoma_dist.errors import ConfigError
from melanoma_dist.models import names
from melanoma_dist.models.backbones import check_backbone
from melanoma_dist.models.names import LITERATURE, UNTRAINED, check_name, source_names


def test_the_sources_name_exactly_the_models_that_timm_registers() -> None:
    entries = _registry._model_entrypoints.items()
    registered = {name for name, build in entries if not build.__module__.startswith("tests.")}
    assert source_names()[0] | set(KERAS_BACKBONES) == registered


def test_a_backbone_that_the_sources_call_untrained_has_no_weights_in_timm() -> None:
    trained = {name.partition(".")[0] for name in timm.list_models(pretrained=True)}
    untrained = {name for name, tags in source_names()[1].items() if tags == {UNTRAINED}}
    assert len(untrained) > 100
    assert untrained & trained == set()


@pytest.mark.parametrize(
    "backbone", [*LITERATURE, *KERAS_BACKBONES, "convnext_tiny", "resnet18.a1_in1k", "vit_tiny_patch16_224_in21k"]
)
def test_a_known_name_passes(backbone: str) -> None:
    check_name(backbone, "none")


@pytest.mark.parametrize(
    ("backbone", "weights"), [("densnet201", "none"), ("resnetv2_152", "imagenet"), ("cspresnet50d", "imagenet")]
)
def test_the_early_message_is_the_one_that_timm_leads_to(backbone: str, weights: str) -> None:
    with pytest.raises(ConfigError) as early:
        check_name(backbone, weights)
    with pytest.raises(ConfigError) as late:
        check_backbone(backbone, weights)
    assert str(early.value).partition(". ")[0] == str(late.value).partition(". ")[0]


def test_the_similar_backbones_with_weights_have_weights() -> None:
    with pytest.raises(ConfigError) as caught:
        check_name("resnetv2_152", "imagenet")
    similar = str(caught.value).partition("with weights: ")[2].partition(".")[0].split(", ")
    assert len(similar) == 4
    for name in similar:
        check_backbone(name, "imagenet")


def test_a_file_of_weights_that_is_missing(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither imagenet, none nor a file or folder"):
        check_name("resnet18", str(tmp_path / "gone.safetensors"))


def test_a_timm_without_sources_is_left_to_the_later_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = importlib.machinery.ModuleSpec("timm", None, is_package=True)
    spec.submodule_search_locations = [str(tmp_path)]
    monkeypatch.setattr(names, "find_spec", lambda _: spec)
    source_names.cache_clear()
    try:
        check_name("any_name", "imagenet")
    finally:
        source_names.cache_clear()


def test_reading_the_names_imports_neither_timm_nor_pytorch() -> None:
    program = (
        "import sys; from melanoma_dist.models.names import source_names; assert source_names()[0];"
        "assert not {'timm', 'torch', 'pandas', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=120)

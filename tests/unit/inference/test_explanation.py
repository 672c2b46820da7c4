"""A map is trusted only if hiding what it marks changes the answer more than hiding the same shape elsewhere."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image

from melanoma_dist.config.model import ModelConfig
from melanoma_dist.inference import explanation
from melanoma_dist.inference.ensemble import Ensemble
from melanoma_dist.inference.explanation import Explanation, explain, overlay
from melanoma_dist.inference.photographs import Photographs
from melanoma_dist.inference.saliency import grad_cam
from melanoma_dist.models.classifier import build_classifier


class Spot(torch.nn.Module):
    """Sees the red of the upper left ninth of an image alone."""

    def forward(self, images: torch.Tensor, metadata: torch.Tensor | None = None) -> torch.Tensor:
        side = images.shape[-1] // 3
        return images[:, :1, :side, :side].amax((2, 3)) * 4


class Spots:
    """An ensemble of one such model."""

    folds = (Spot().eval(),)


def image_with_spot() -> torch.Tensor:
    image = torch.zeros(1, 3, 48, 48)
    image[:, 0, 6:8, 6:8] = 1
    return image


@pytest.mark.parametrize(("at", "trust"), [((0, 0), 1.0), ((2, 2), 0.0)])
def test_a_map_of_the_right_place_is_trusted_and_one_of_another_is_not(
    monkeypatch: pytest.MonkeyPatch, at: tuple[int, int], trust: float
) -> None:
    evidence = torch.zeros(1, 3, 3)
    evidence[0, at[0], at[1]] = 1
    monkeypatch.setattr(explanation, "grad_cam", lambda *_, **__: (evidence, ""))
    (result,) = explanation._explain(cast(Ensemble, Spots()), image_with_spot(), 0)
    assert result.trust == pytest.approx(trust, abs=0.13)
    assert (result.fall > 0.2) == (trust == 1.0)
    assert ("rests on the marked area" in result.sentence) == (trust == 1.0)


def test_an_image_that_nothing_speaks_for_has_no_map(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explanation, "grad_cam", lambda *_, **__: (torch.zeros(1, 3, 3), ""))
    (result,) = explanation._explain(cast(Ensemble, Spots()), image_with_spot(), 0)
    assert result.evidence is None
    assert result.sentence == "No map: nothing in the image speaks for the label."


def test_the_map_of_an_ensemble_is_the_mean_of_its_folds() -> None:
    config = ModelConfig(backbone="test_resnet", weights="none", head_norm="none")
    models = [build_classifier(config, 64, 3, seed).eval() for seed in (1, 2)]
    pixels = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    results = list(explanation._explain(cast(Ensemble, SimpleNamespace(folds=models)), pixels, 2))
    maps = [evidence for model in models if (evidence := grad_cam(model, pixels, 2)[0]) is not None]
    mean = torch.stack(maps).mean(0).numpy()
    assert [result.evidence is not None for result in results] == [bool(each.any()) for each in mean]
    assert any(result.evidence is not None for result in results)
    for result, expected in zip(results, mean, strict=True):
        if result.evidence is not None:
            np.testing.assert_allclose(result.evidence, expected, atol=1e-6)
            assert 0 <= result.trust <= 1


def test_a_model_without_a_map_says_why(ensemble: Ensemble, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (80, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.png")
    (result,) = explain(ensemble, Photographs.prepare([tmp_path / "a.png"], 64), "NV")
    assert result.sentence == "No map: the backbone's last map has one position."


def test_a_small_change_is_no_reason() -> None:
    assert "no reliable explanation" in Explanation(np.ones((2, 2), np.float32), "", 0.001, -0.1, 1.0).sentence


def test_an_overlay_changes_where_there_is_evidence_alone() -> None:
    picture = Image.new("RGB", (64, 64), (200, 160, 140))
    evidence = np.zeros((4, 4), np.float32)
    evidence[0, 0] = 1
    changed = np.abs(np.asarray(overlay(picture, evidence)).astype(int) - np.asarray(picture)).sum(2)
    assert changed[:8, :8].min() > 50
    assert changed[40:, 40:].max() == 0

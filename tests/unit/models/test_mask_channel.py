"""A mask as a fourth channel: at the start it changes no answer, and it is learnt from."""

from __future__ import annotations

import pytest
import torch

from melanoma_dist.config.model import ModelConfig
from melanoma_dist.errors import ConfigError
from melanoma_dist.models.classifier import build_classifier


@pytest.mark.parametrize(
    ("backbone", "size"),
    [("test_resnet", 64), ("test_vit", 32), ("tf_efficientnet_lite0", 64), ("densenet121", 64), ("resnet50v2", 64)],
)
def test_a_mask_changes_no_answer_at_the_start_and_gets_a_gradient(backbone: str, size: int) -> None:
    config = ModelConfig(backbone, "none")
    plain, masked = (build_classifier(config, size, 3, 7, channels=channels).eval() for channels in (3, 4))
    pixels = torch.randn(2, 4, size, size, generator=torch.Generator().manual_seed(1))
    answers = masked(pixels)
    with torch.no_grad():
        assert torch.allclose(answers, plain(pixels[:, :3]), rtol=1e-4, atol=1e-5)
    before, after = plain.state_dict(), masked.state_dict()
    [first] = [key for key, value in after.items() if value.shape != before[key].shape]
    assert torch.equal(after[first][:, :3], before[first])
    assert not after[first][:, 3].any()
    answers.sum().backward()  # type: ignore[no-untyped-call]
    gradient = dict(masked.named_parameters())[first].grad
    assert gradient is not None
    assert gradient[:, 3].abs().max() > 0


def test_a_backbone_that_rescales_its_first_weights_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--mask channel: the backbone test_nfnet cannot take a fourth .*rescales"):
        build_classifier(ModelConfig("test_nfnet", "none"), 64, 2, 0, channels=4)

from __future__ import annotations

import pytest
import torch

from melanoma_dist.config.model import ModelConfig
from melanoma_dist.inference.saliency import grad_cam
from melanoma_dist.models.classifier import Classifier, build_classifier

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def model_of(backbone: str, **options: object) -> Classifier:
    config = ModelConfig(backbone=backbone, weights="none", head_norm="none", **options)  # type: ignore[arg-type]
    return build_classifier(config, 64, 3, seed=1).eval()


@pytest.mark.parametrize(
    ("backbone", "grid"), [("test_resnet", (2, 2)), ("test_mambaout", (2, 2)), ("test_vit", (4, 4))]
)
def test_maps_of_convolutions_channels_last_and_tokens(backbone: str, grid: tuple[int, int]) -> None:
    maps, why = grad_cam(model_of(backbone), IMAGES, 1)
    assert why == ""
    assert maps is not None
    assert maps.shape == (2, *grid)
    assert ((maps >= 0) & (maps <= 1)).all()
    assert all(image.max() in (0.0, 1.0) for image in maps)


def test_it_is_the_gradient_of_the_label_by_autograd_through_the_whole_model() -> None:
    """Against the definition (eq. 1 and 2 of the paper), the gradient taken by a hook on the trunk's last stage."""
    model = model_of("test_resnet")
    outputs: list[torch.Tensor] = []

    def keep(_: object, __: object, output: torch.Tensor) -> None:
        output.retain_grad()
        outputs.append(output)

    handle = list(model.trunk.children())[-3].register_forward_hook(keep)  # the last stage; pooling and fc are empty
    model(IMAGES)[:, 2].sum().backward()
    handle.remove()
    (features,) = outputs
    assert features.grad is not None
    weights = features.grad.mean((2, 3))
    expected = torch.einsum("bc,bchw->bhw", weights, features.detach()).relu()
    expected = expected / expected.amax((1, 2), keepdim=True).clamp(min=1e-38)
    maps, _ = grad_cam(model, IMAGES, 2)
    torch.testing.assert_close(maps, expected)


def test_evidence_against_a_label_is_that_for_its_negated_logit() -> None:
    model = model_of("test_resnet")
    both, _ = grad_cam(model, IMAGES, 1, against=torch.tensor([True, False]))
    plain, _ = grad_cam(model, IMAGES, 1)
    with torch.no_grad():
        model.linear.weight[1] *= -1
        model.linear.bias[1] *= -1
    negated, _ = grad_cam(model, IMAGES, 1)
    assert both is not None
    assert plain is not None
    assert negated is not None
    torch.testing.assert_close(both, torch.stack([negated[0], plain[1]]))


def test_where_there_is_no_map_it_says_so() -> None:
    small = IMAGES[..., :32, :32]
    assert grad_cam(model_of("test_resnet"), small, 0) == (
        None,
        "the backbone's last map has one position",
    )

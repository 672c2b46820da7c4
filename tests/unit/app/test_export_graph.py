"""The exported graph against the parts that it repeats: PyTorch's resize, SciPy's calibration, the evaluation graph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

from melanoma_dist.app.export.graph import Calibration, ExportedGraph
from melanoma_dist.app.export.onnx_file import open_onnx, write_onnx
from melanoma_dist.app.export.resize import resize_bytes
from melanoma_dist.app.export.torch_file import open_torch, write_torch
from melanoma_dist.artifacts.decision_rules import DecisionRules, LabelRules
from melanoma_dist.config.metadata import field_names
from melanoma_dist.config.model import ModelConfig
from melanoma_dist.errors import DataError
from melanoma_dist.input.graph import InputFormat
from melanoma_dist.metrics.calibration import Calibrator, Isotonic, Logistic, Temperature
from melanoma_dist.metrics.intervals import Undefined
from melanoma_dist.models.classifier import build_classifier

LABELS = ("MEL", "NV", "BCC")
FORMAT = InputFormat(64, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
NONE = DecisionRules({})


def pixels(*shape: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("height", "width", "side"),
    [(512, 683, 224), (64, 64, 64), (40, 33, 64), (512, 512, 64), (700, 1050, 299), (48, 1000, 64), (1, 2, 32)],
)
def test_pixels_are_those_of_the_byte_kernel_that_trained_the_models(height: int, width: int, side: int) -> None:
    images = torch.from_numpy(pixels(2, height, width)).permute(0, 3, 1, 2)
    expected = functional.interpolate(images, (side, side), mode="bilinear", antialias=True).float()
    resized = resize_bytes(images.float(), side)
    assert (resized - expected).abs().max() <= 1
    assert (resized != expected).float().mean() <= 1e-4  # of the float kernel, more than 2 % differ


def rules(**calibrators: Calibrator | None) -> DecisionRules:
    return DecisionRules(
        {label: LabelRules(each, ()) if each else Undefined("no positives") for label, each in calibrators.items()}
    )


@pytest.mark.parametrize(
    "calibrator", [Logistic(0.83, -0.99), Logistic(0.01, 20.0), Logistic(40.0, -3.0), Temperature(2.5)], ids=str
)
def test_calibration_is_that_of_the_decision_rules_up_to_both_ends(calibrator: Calibrator) -> None:
    middle = np.linspace(0, 1, 997, dtype=np.float32)
    ends = np.array([0, 1e-30, 1e-9, 5e-8, 1e-7, 1e-6], dtype=np.float32)
    raw = np.stack([np.concatenate([ends, middle, 1 - ends])] * 3, axis=1)
    chosen = rules(MEL=calibrator, NV=None)
    expected = chosen.calibrate_array(raw, LABELS)
    calibrated = Calibration(chosen, LABELS)(torch.from_numpy(raw)).numpy()
    np.testing.assert_allclose(calibrated, expected, atol=3e-6)
    np.testing.assert_array_equal(calibrated[:, 1:], raw[:, 1:])


def test_a_calibration_that_the_graph_does_not_know_is_refused() -> None:
    with pytest.raises(DataError, match="kind isotonic cannot be exported"):
        Calibration(rules(MEL=Isotonic((0.0, 1.0), (0.0, 1.0))), LABELS)


class Corner(torch.nn.Module):
    """A model that answers by three pixels in a corner: every orientation brings another corner there."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([images[:, 0, 0, 0], images[:, 1, 0, 1], images[:, 2, 0, 2]], dim=1)


def test_orientations_are_those_of_the_evaluation_graph() -> None:
    image = pixels(1, 64, 64)
    views = [np.flip(np.rot90(image[0], turns), 1) if mirrored else np.rot90(image[0], turns)
            for mirrored in (False, True) for turns in range(4)]  # fmt: skip
    expected = []
    for view in views:
        values = np.array([view[0, 0, 0], view[0, 1, 1], view[0, 2, 2]]) / 255
        logits = (values - FORMAT.mean) / FORMAT.std
        expected.append(1 / (1 + np.exp(-logits)))
    graph = ExportedGraph([Corner()], FORMAT, 8, Calibration(NONE, LABELS), (0.5, 0.5, 0.5))
    probability, folds, positive = graph(torch.from_numpy(image))
    np.testing.assert_allclose(probability[0].numpy(), np.mean(expected, axis=0), atol=1e-6)
    assert folds.shape == (1, 1, 3)
    assert positive[0].tolist() == (probability[0] >= 0.5).tolist()


class Sure(torch.nn.Module):
    """A model whose logits, by the colours of a corner, are 9 to 19: float32 has few probabilities there."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 14 + 2 * images[:, :, 0, 0]


def test_probabilities_near_1_are_calibrated_in_files_as_in_predict(tmp_path: Path) -> None:
    images = pixels(500, 64, 64)
    logits = 14 + 2 * (images[:, 0, 0] / np.float32(255) - np.float32(FORMAT.mean)) / np.float32(FORMAT.std)
    raw = torch.sigmoid(torch.from_numpy(logits.astype(np.float32)))
    hardly_trained = rules(**dict.fromkeys(LABELS, Logistic(0.12, -1.6)))
    expected = hardly_trained.calibrate_array(raw.numpy(), LABELS)
    assert np.ptp(expected) > 0.1
    graph = ExportedGraph([Sure()], FORMAT, 1, Calibration(hardly_trained, LABELS), (0.5, 0.5, 0.5)).eval()
    write_onnx(graph, tmp_path / "graph.onnx", {})
    difference = np.abs(open_onnx(tmp_path / "graph.onnx", 1)(images)[0] - expected)
    # The last bit of a logit may decide between two neighbours near 1, which seldom are the same number.
    assert (difference > 1e-4).mean() < 0.01


@pytest.mark.parametrize(
    ("labels", "tta", "config"),
    [
        (1, 1, ModelConfig("test_resnet", "none", pooling="gem", hidden=7, head_norm="none")),
        pytest.param(2, 1, ModelConfig("resnet50v2", "none"), marks=pytest.mark.slow),
        pytest.param(3, 8, ModelConfig("test_vit", "none", pooling="avgmax"), marks=pytest.mark.slow),
        pytest.param(
            2, 3, ModelConfig("test_resnet", "none", metadata="age,site", fusion="metablock"), marks=pytest.mark.slow
        ),
    ],
    ids=["one-label-gem-hidden", "keras", "transformer", "metadata"],
)
def test_any_head_batch_and_image_size_gives_the_same_in_files(
    labels: int, tta: int, config: ModelConfig, tmp_path: Path
) -> None:
    models = [build_classifier(config, 64, labels, seed).eval() for seed in (0, 1)]
    own = LABELS[:labels]
    for model in models if config.metadata != "none" else []:
        torch.nn.init.normal_(model.gate.shift.weight)  # 0 in a new model, which then does not depend on metadata
    fields, calibration = field_names(config.metadata), Calibration(rules(MEL=Logistic(2.0, 1.0)), own)
    graph = ExportedGraph(models, FORMAT, tta, calibration, (0.7,) * labels, fields).eval()
    write_onnx(graph, tmp_path / "graph.onnx", {"labels": list(own)}, largest=0)
    assert (tmp_path / "graph.onnx.data").stat().st_size > 100_000  # the weights, as of models above 2 GB
    write_torch(graph, tmp_path / "graph.pt2", {"labels": list(own)})
    for answer in (open_onnx(tmp_path / "graph.onnx", 1), open_torch(tmp_path / "graph.pt2", 1)):
        for shape in ((1, 20, 31), (2, 64, 64), (17, 150, 90)):
            inputs = [pixels(*shape)]
            if fields:
                inputs.append(np.array([[30, 6], [np.nan, np.nan], [80, np.nan]] * 6, dtype=np.float32)[: shape[0]])
            with torch.no_grad():
                expected = [each.numpy() for each in graph(*map(torch.from_numpy, inputs))]
            for own_answer, other in zip(answer(*inputs), expected, strict=True):
                assert own_answer.shape == other.shape
                np.testing.assert_allclose(own_answer, other, atol=1e-5)
            first = answer(*(each[:1] for each in inputs))[0]
            np.testing.assert_allclose(first, answer(*inputs)[0][:1], atol=1e-6)

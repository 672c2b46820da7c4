"""The exported graph: photographs and metadata in, calibrated probabilities and calls out.

It repeats in one module what `melanoma_dist.inference.ensemble` does with a decoded photograph: the resize, all
orientations, the models of the folds, the mean over orientations, calibration, the mean over folds, and the thresholds.

Shapes: B images of H rows and W columns, S pixels a side, T orientations, k folds, L labels, F fields of metadata.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from melanoma_dist.app.export.resize import resize_bytes
from melanoma_dist.artifacts.decision_rules import DecisionRules, LabelRules
from melanoma_dist.errors import DataError
from melanoma_dist.input.colour import normalisation
from melanoma_dist.input.graph import ORIENTATIONS, InputFormat, Orientation
from melanoma_dist.metrics.calibration import NEAREST, Calibrator, Logistic, Temperature

INPUT, METADATA = "images", "metadata"
OUTPUTS = ("probability", "folds", "positive")


class ExportedGraph(nn.Module):
    """The models of some folds, with all that belongs before and behind them."""

    gain: torch.Tensor
    offset: torch.Tensor
    thresholds: torch.Tensor

    def __init__(
        self,
        models: Sequence[nn.Module],
        image_format: InputFormat,
        tta: int,
        calibration: Calibration,
        thresholds: Sequence[float],
        fields: tuple[str, ...] = (),
    ) -> None:
        """``tta``: orientations to average, 1 to 8. ``thresholds``: calibrated probability of each label's call.

        ``fields``: metadata that the models take.
        """
        super().__init__()
        self.fields = fields
        self.models, self.calibration = nn.ModuleList(models), calibration
        self._side, self._orientations = image_format.size, ORIENTATIONS[:tta]
        colour = torch.from_numpy(normalisation(image_format.mean, image_format.std, 1))[0]
        self.register_buffer("gain", colour[:, :3].diagonal().reshape(1, 3, 1, 1).clone())
        self.register_buffer("offset", colour[:, 3].reshape(1, 3, 1, 1).clone())
        self.register_buffer("thresholds", torch.tensor(thresholds, dtype=torch.float32))

    def forward(
        self, images: torch.Tensor, metadata: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """RGB bytes [B, H, W, 3] -> probability [B, L], that of each fold [B, k, L], and the calls [B, L].

        ``metadata`` are codes [B, F] of `melanoma_dist.data.metadata` for models that take them, NaN for unknown.
        """
        inputs = [self._prepared(images)]
        if metadata is not None:
            inputs.append(metadata.repeat(len(self._orientations), 1))
        folds = torch.stack([self.calibration(self._probability(model, *inputs)) for model in self.models], dim=1)
        probability = folds.mean(1)
        return probability, folds, probability >= self.thresholds

    def _prepared(self, images: torch.Tensor) -> torch.Tensor:
        """[B, H, W, 3] -> [T * B, 3, S, S]: all images in the first orientation, then all in the next."""
        pixels = resize_bytes(images.permute(0, 3, 1, 2).float(), self._side)
        normalised = pixels * self.gain + self.offset
        return torch.cat([_turn(normalised, orientation) for orientation in self._orientations])

    def _probability(self, model: nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
        """[T * B, 3, S, S], and metadata [T * B, F], -> [B, L], not calibrated."""
        probability = _sigmoid(model(*inputs))
        return probability.reshape(len(self._orientations), -1, len(self.thresholds)).mean(0)


class Calibration(nn.Module):
    """Scale and shift the logits of probabilities. Labels without rules stay as they are."""

    scale: torch.Tensor
    shift: torch.Tensor
    calibrates: torch.Tensor

    def __init__(self, rules: DecisionRules, labels: tuple[str, ...]) -> None:
        super().__init__()
        own = [rules.labels.get(label) for label in labels]
        logistic = [_logistic(each.calibrator) if isinstance(each, LabelRules) else Logistic(1.0, 0.0) for each in own]
        self.register_buffer("scale", torch.tensor([each.scale for each in logistic], dtype=torch.float32))
        self.register_buffer("shift", torch.tensor([each.shift for each in logistic], dtype=torch.float32))
        self.register_buffer("calibrates", torch.tensor([isinstance(each, LabelRules) for each in own]))

    def forward(self, probability: torch.Tensor) -> torch.Tensor:
        """[B, L] -> [B, L], as `Logistic.apply` calibrates.

        Both ends are limited by themselves: in float32 the difference of a probability near 1 from 1 is exact, but
        ``1 - NEAREST`` is not.
        """
        logits = probability.clamp(min=NEAREST).log() - (1.0 - probability).clamp(min=NEAREST).log()
        return torch.where(self.calibrates, torch.sigmoid(logits * self.scale + self.shift), probability)


def _logistic(calibrator: Calibrator) -> Logistic:
    match calibrator:
        case Logistic():
            return calibrator
        case Temperature():
            return Logistic(1.0 / calibrator.temperature, 0.0)
    raise DataError(f"decision_rules.json: a calibration of the kind {calibrator.kind} cannot be exported.")


def _sigmoid(logits: torch.Tensor) -> torch.Tensor:
    """The sigmoid in the steps in which PyTorch computes it, so that every runtime rounds alike.

    Near 1, float32 has few numbers, and the calibration takes their logit. There the sigmoid of ONNX Runtime 1.32
    differs by up to 0.7 of a logit: by 0.008 of a calibrated probability of a hardly trained resnet152v2.
    """
    return (1.0 + torch.exp(-logits)).reciprocal()


def _turn(images: torch.Tensor, orientation: Orientation) -> torch.Tensor:
    """One of the eight orientations of [B, 3, S, S]: mirrored along its axes, then its axes exchanged."""
    axes = [axis for axis, mirrored in ((2, orientation.down), (3, orientation.across)) if mirrored]
    mirrored = images.flip(axes) if axes else images
    return mirrored.transpose(2, 3) if orientation.exchanged else mirrored

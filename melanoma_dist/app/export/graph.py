"""The exported graph: photographs and metadata in, calibrated probabilities and calls out.

It repeats in one module what `melanoma_dist.inference.ensemble` does with a decoded photograph: the resize, all
orientations, the models of the folds, the mean over orientations, calibration, the mean over folds, and the thresholds.

Shapes: B images of H rows and W columns, C channels (3, or 4 with a mask), S pixels a side, T orientations, k folds, L
labels, F fields of metadata.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from melanoma_dist.app.export.resize import resize_bytes
from melanoma_dist.artifacts.decision_rules import DecisionRules, LabelRules
from melanoma_dist.errors import DataError
from melanoma_dist.input.colour import normalisation, with_mask
from melanoma_dist.input.graph import ORIENTATIONS, InputFormat, Orientation
from melanoma_dist.metrics.calibration import NEAREST, Calibrator, Logistic, Temperature

INPUT, METADATA = "images", "metadata"
OUTPUTS = ("probability", "folds", "positive")
PIXELS = "lesion"
"""The output of a segmenter."""


class ExportedGraph(nn.Module):
    """The models of some folds, with all that belongs before and behind them."""

    outputs = OUTPUTS
    thresholds: torch.Tensor

    def __init__(
        self,
        models: Sequence[nn.Module],
        image_format: InputFormat,
        tta: int,
        calibration: Calibration,
        thresholds: Sequence[float],
        fields: tuple[str, ...] = (),
        channels: int = 3,
    ) -> None:
        """``tta``: orientations to average, 1 to 8. ``thresholds``: calibrated probability of each label's call.

        ``fields``: metadata that the models take. ``channels``: 4 for models that take a mask.
        """
        super().__init__()
        self.fields, self.channels = fields, channels
        self.models, self.calibration = nn.ModuleList(models), calibration
        self._prepare = Preparation(image_format, tta, channels)
        self.register_buffer("thresholds", torch.tensor(thresholds, dtype=torch.float32))

    def forward(
        self, images: torch.Tensor, metadata: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """RGB bytes [B, H, W, 3] -> probability [B, L], that of each fold [B, k, L], and the calls [B, L].

        For models that take a mask, it is a fourth channel: 0, and 255 for lesion.
        ``metadata`` are codes [B, F] of `melanoma_dist.data.metadata` for models that take them, NaN for unknown.
        """
        inputs = [self._prepare(images)]
        if metadata is not None:
            inputs.append(metadata.repeat(len(self._prepare.orientations), 1))
        folds = torch.stack([self.calibration(self._probability(model, *inputs)) for model in self.models], dim=1)
        probability = folds.mean(1)
        return probability, folds, probability >= self.thresholds

    def _probability(self, model: nn.Module, *inputs: torch.Tensor) -> torch.Tensor:
        """[T * B, 3, S, S], and metadata [T * B, F], -> [B, L], not calibrated."""
        probability = _sigmoid(model(*inputs))
        return probability.reshape(len(self._prepare.orientations), -1, len(self.thresholds)).mean(0)


class Preparation(nn.Module):
    """The pixels that networks take, in all orientations."""

    gain: torch.Tensor
    offset: torch.Tensor

    def __init__(self, image_format: InputFormat, tta: int, channels: int = 3) -> None:
        super().__init__()
        self.orientations = ORIENTATIONS[:tta]
        self._side = image_format.size
        colour = normalisation(image_format.mean, image_format.std, 1)
        (maps,) = torch.from_numpy(with_mask(colour) if channels > 3 else colour)
        self.register_buffer("gain", maps[:, :channels].diagonal().reshape(1, channels, 1, 1).clone())
        self.register_buffer("offset", maps[:, channels].reshape(1, channels, 1, 1).clone())

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, H, W, C] -> [T * B, C, S, S]: all images in the first orientation, then all in the next."""
        pixels = resize_bytes(images.permute(0, 3, 1, 2).float(), self._side)
        normalised = pixels * self.gain + self.offset
        return torch.cat([turn(normalised, orientation) for orientation in self.orientations])


class SegmenterGraph(nn.Module):
    """The segmenters of some folds: photographs in, probability of lesion of each pixel out."""

    fields: tuple[str, ...] = ()
    channels = 3
    outputs = (PIXELS,)

    def __init__(self, models: Sequence[nn.Module], image_format: InputFormat, tta: int) -> None:
        """``tta``: orientations to average, 1 to 8."""
        super().__init__()
        self.models = nn.ModuleList(models)
        self._prepare = Preparation(image_format, tta)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """RGB bytes [B, H, W, 3] -> probability of lesion [B, S, S], the mean over folds and orientations."""
        pixels = self._prepare(images)
        mean = torch.stack([torch.sigmoid(model(pixels))[:, 0] for model in self.models]).mean(0)
        views = mean.reshape(len(self._prepare.orientations), -1, *mean.shape[1:])
        upright = [_upright(view, each) for view, each in zip(views, self._prepare.orientations, strict=True)]
        return torch.stack(upright).mean(0)


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


def turn(images: torch.Tensor, orientation: Orientation) -> torch.Tensor:
    """One of the eight orientations of [B, C, S, S]: mirrored along its axes, then its axes exchanged."""
    axes = [axis for axis, mirrored in ((2, orientation.down), (3, orientation.across)) if mirrored]
    mirrored = images.flip(axes) if axes else images
    return mirrored.transpose(2, 3) if orientation.exchanged else mirrored


def _upright(masks: torch.Tensor, orientation: Orientation) -> torch.Tensor:
    """Undo `turn` for [B, S, S]."""
    masks = masks.transpose(1, 2) if orientation.exchanged else masks
    axes = [axis for axis, mirrored in ((1, orientation.down), (2, orientation.across)) if mirrored]
    return masks.flip(axes) if axes else masks


Graph = ExportedGraph | SegmenterGraph

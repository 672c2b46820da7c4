"""Explains an ensemble's answer for an image: the saliency map of its folds, and a check of that map.

A map may look convincing and yet point anywhere (Adebayo et al. 2018, "Sanity checks for saliency maps"). So each map
is tested as Petsiuk et al. 2018 ("RISE", deletion) do, in one step: the part of the image with the most evidence is
blurred, and the fall of the probability is compared with that after the same shape is blurred in other places.

Shapes: b images of a batch, S pixels a side, h rows and w columns of a map, k folds.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from matplotlib import colormaps
from PIL import Image
from torch.nn import functional
from torchvision.transforms.v2.functional import gaussian_blur

from melanoma_dist.inference.ensemble import Ensemble
from melanoma_dist.inference.images import Images
from melanoma_dist.inference.lesion_masks import WHOLE, Box
from melanoma_dist.inference.photographs import Photographs
from melanoma_dist.inference.saliency import NO_FEATURE_MAP, ONE_POSITION, grad_cam
from melanoma_dist.train.predict import inputs_of

Array = npt.NDArray[np.float32]

_HIDDEN = 0.15  # share of the image that is blurred: little enough that it finds other places in the image
_SHIFTS = [(rows, columns) for rows in range(3) for columns in range(3) if rows or columns]  # in thirds of a side
_BLUR = 1 / 8  # sigma as a share of the side: colours stay, structures go
_TRUSTED = 0.75  # of the other places must matter less
_LEAST_FALL = 0.01  # of the probability; what changes it less is no reason
_OPACITY = 0.55
_NO_EVIDENCE = "nothing in the image speaks for the label"
_CODES = {NO_FEATURE_MAP: "no_feature_map", ONE_POSITION: "one_position", _NO_EVIDENCE: "no_evidence"}


@dataclass(frozen=True)
class Explanation:
    """What an answer rests on, for one image and label."""

    evidence: Array | None
    """[h, w] evidence for the label, 0 to 1, the mean over the folds; None where there is no map."""
    why: str
    """Why there is no map; empty where there is one."""
    fall: float = np.nan
    """By how much the raw probability falls when the marked part of the image is blurred; negative if it rises."""
    fall_elsewhere: float = np.nan
    """The median of that for the same shape in eight other places."""
    trust: float = np.nan
    """The share of these places where the fall is smaller, 0 to 1. A map that points at random has 0.5 on average."""
    window: Box = WHOLE
    """The part of the image that the evidence covers: what the models see."""

    @property
    def sentence(self) -> str:
        """What the check says about the map."""
        if self.evidence is None:
            return f"No map: {self.why}."
        return (
            f"Blurring the marked {100 * _HIDDEN:.0f} % changes the raw probability by {-self.fall:+.3f}, "
            f"the same shape elsewhere by {-self.fall_elsewhere:+.3f} (median of {len(_SHIFTS)}). {self._verdict()}"
        )

    @property
    def code(self) -> str:
        """The sentence for programs, a code that never changes: `strings.en.js` of the page has all."""
        if self.evidence is None:
            return _CODES[self.why]
        return "rests_on_area" if self._reliable else "unreliable_map"

    @property
    def values(self) -> dict[str, float]:
        """The values in the sentence."""
        if self.evidence is None:
            return {}
        changes = {"change": -self.fall, "elsewhere": -self.fall_elsewhere}
        return {"share": round(100 * _HIDDEN), **changes, "places": len(_SHIFTS)}

    @property
    def _reliable(self) -> bool:
        return self.trust >= _TRUSTED and self.fall >= _LEAST_FALL

    def _verdict(self) -> str:
        if self._reliable:
            return "The answer rests on the marked area."
        return "The map is no reliable explanation of this answer."


def explain(ensemble: Ensemble, images: Images | Photographs, label: str) -> list[Explanation]:
    """Explain the ensemble's answers for a label, an explanation per image, in order."""
    column = ensemble.labels.index(label)
    images = ensemble.located(images)
    windows = ensemble.windows(images)
    explanations: list[Explanation] = []
    for pixels, batch in ensemble.loader(images, min(len(images.rows), 16)):
        metadata = [each[: batch.count] for each in inputs_of(pixels, batch)[1:]]
        explanations += _explain(ensemble, pixels[: batch.count], column, *metadata)
    if windows is None:
        return explanations
    boxes = np.concatenate([windows.anchor, windows.extent], axis=1).tolist()
    return [
        replace(each, window=(top, left, height, width))
        for each, (top, left, height, width) in zip(explanations, boxes, strict=True)
    ]


def _explain(
    ensemble: Ensemble, pixels: torch.Tensor, column: int, metadata: torch.Tensor | None = None
) -> Iterator[Explanation]:
    maps = []
    for model in ensemble.folds:
        evidence, why = grad_cam(model, pixels, column, metadata=metadata)
        if evidence is None:
            yield from [Explanation(None, why)] * len(pixels)
            return
        maps.append(evidence)
    mean = torch.stack(maps).mean(0)
    falls = _falls(ensemble, pixels, mean, column, metadata)
    for evidence, (here, *elsewhere) in zip(mean.cpu().numpy(), falls, strict=True):
        if not evidence.any():
            yield Explanation(None, _NO_EVIDENCE)
        else:
            trust = float(np.mean(here > np.asarray(elsewhere)))
            yield Explanation(evidence, "", here, float(np.median(elsewhere)), trust)


def _falls(
    ensemble: Ensemble, pixels: torch.Tensor, evidence: torch.Tensor, column: int, metadata: torch.Tensor | None
) -> list[list[float]]:
    """By how much each image's probability falls: with the marked part blurred, then with each other place."""
    side = pixels.shape[-1]
    full = functional.interpolate(evidence[:, None], size=(side, side), mode="bilinear", align_corners=False)
    limit = torch.quantile(full.flatten(1), 1 - _HIDDEN, dim=1)[:, None, None, None]
    marked = full >= limit
    sigma = side * _BLUR
    blurred = gaussian_blur(pixels, [2 * round(2 * sigma) + 1] * 2, [sigma, sigma])
    blurred[:, 3:] = pixels[:, 3:]  # the photograph alone: a mask stays
    before = _probability(ensemble, pixels, column, metadata)
    places = [marked] + [marked.roll((side * row // 3, side * col // 3), (2, 3)) for row, col in _SHIFTS]
    after = [_probability(ensemble, torch.where(place, blurred, pixels), column, metadata) for place in places]
    return torch.stack([before - probability for probability in after], dim=1).tolist()


def _probability(ensemble: Ensemble, pixels: torch.Tensor, column: int, metadata: torch.Tensor | None) -> torch.Tensor:
    """[b, 3, S, S] and [b, F] -> [b], the mean of the folds' raw probabilities."""
    with torch.inference_mode():
        answers = [model(pixels, metadata)[:, column].float().sigmoid() for model in ensemble.folds]
        return torch.stack(answers).mean(0).cpu()


def overlay(picture: Image.Image, evidence: Array, window: Box = WHOLE) -> Image.Image:
    """Lay the evidence [h, w] over the part of a picture that the models see, resized to a square."""
    left, upper, right, lower = in_pixels(window, picture.size)
    part = _overlay(picture.crop((left, upper, right, lower)), evidence)
    whole = picture.copy()
    whole.paste(part, (left, upper))
    return whole


def in_pixels(window: Box, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The left, upper, right and lower edge of a window in a picture of ``size`` (width, height), at least a pixel."""
    (top, left, height, width), (across, down) = window, size
    x, y = min(round(left * across), across - 1), min(round(top * down), down - 1)
    return x, y, max(x + 1, round((left + width) * across)), max(y + 1, round((top + height) * down))


def _overlay(picture: Image.Image, evidence: Array) -> Image.Image:
    grey = Image.fromarray((255 * evidence).astype(np.uint8)).resize(picture.size, Image.Resampling.BICUBIC)
    share = np.asarray(grey, dtype=np.float32) / 255
    heat = Image.fromarray((255 * colormaps["inferno"](share)[..., :3]).astype(np.uint8))
    opacity = Image.fromarray((255 * _OPACITY * np.sqrt(share)).astype(np.uint8))
    return Image.composite(heat, picture, opacity)

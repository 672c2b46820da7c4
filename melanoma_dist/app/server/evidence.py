"""Where in an image the folds found evidence for a label, for an answer over HTTP."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from melanoma_dist.app.inspection import InspectedPhoto, Reason
from melanoma_dist.app.predictor import Predictor
from melanoma_dist.inference.explanation import explain, in_pixels
from melanoma_dist.inference.lesion_masks import WHOLE, Box
from melanoma_dist.inference.photographs import Photographs

_MEANING = "It shows what the answer rests on, not whether the reason is a medical one."


@dataclass(frozen=True)
class Evidence:
    """A map of evidence."""

    grid: npt.NDArray[np.float32] | None
    """[h, w] of 0 to 1, the mean over the folds; None where there is no map."""
    trust: float | None
    """0 to 1, see `Explanation.trust`; None where there is no map."""
    note: str
    """How far to trust it, or why there is no map."""
    reason: Reason
    """The same for programs."""
    window: Box = WHOLE
    """The part of the image that the map covers."""

    def png(self, width: int, height: int) -> bytes:
        """The map as a grey picture of the image's size: white is most evidence."""
        grid = np.zeros((1, 1), np.float32) if self.grid is None else self.grid
        left, upper, right, lower = in_pixels(self.window, (width, height))
        part = Image.fromarray((grid * 255).round().astype(np.uint8))
        grey = Image.new("L", (width, height))
        grey.paste(part.resize((right - left, lower - upper), Image.Resampling.BILINEAR), (left, upper))
        buffer = io.BytesIO()
        grey.save(buffer, "PNG")
        return buffer.getvalue()


def find_evidence(predictor: Predictor, photo: InspectedPhoto, label: str) -> Evidence:
    """Compute and check the map of one prepared photo, on the thread that owns the models."""
    [explanation] = explain(predictor.ensemble, Photographs.of([photo.photo], [photo.about]), label)
    reason = Reason(explanation.code, explanation.values)
    if explanation.evidence is None:
        return Evidence(None, None, explanation.sentence, reason, explanation.window)
    trust = None if math.isnan(explanation.trust) else explanation.trust
    return Evidence(explanation.evidence, trust, f"{explanation.sentence} {_MEANING}", reason, explanation.window)

"""Where in an image the folds found evidence for a label: the one place that knows how it is computed."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from melanoma_dist.app.predictor import Predictor
from melanoma_dist.data.photo import Photo
from melanoma_dist.inference.photographs import Photographs
from melanoma_dist.inference.saliency import grad_cam


@dataclass(frozen=True)
class Evidence:
    """A map of evidence."""

    grid: npt.NDArray[np.float32] | None
    """[h, w] of 0 to 1, the mean over the folds; None where there is no map."""
    note: str
    """How far to trust it, or why there is no map."""

    def png(self, width: int, height: int) -> bytes:
        """The map as a grey picture of the image's size: white is most evidence."""
        grid = np.zeros((1, 1), np.float32) if self.grid is None else self.grid
        grey = Image.fromarray((grid * 255).round().astype(np.uint8)).resize((width, height), Image.Resampling.BILINEAR)
        buffer = io.BytesIO()
        grey.save(buffer, "PNG")
        return buffer.getvalue()


_NOTE = "It shows what the answer rests on, not whether the reason is a medical one."


def find_evidence(predictor: Predictor, photo: Photo, label: str) -> Evidence:
    """Compute the map of one prepared photo, on the thread that owns the models."""
    ensemble = predictor.ensemble
    column = ensemble.labels.index(label)
    [(images, _)] = ensemble.loader(Photographs.of([photo]), 1)
    grids = []
    for model in ensemble.model.models:
        grid, why = grad_cam(model, images, column)
        if grid is None:
            return Evidence(None, f"There is no map: {why}.")
        grids.append(grid[0].float())
    return Evidence(torch.stack(grids).mean(0).cpu().numpy(), _NOTE)

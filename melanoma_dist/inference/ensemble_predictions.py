"""What an ensemble predicts. Shapes: n images, k folds, L labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from melanoma_dist.inference.lesion_masks import Lesion

Array = npt.NDArray[np.float32]


@dataclass(frozen=True)
class EnsemblePredictions:
    """What an ensemble predicts for n images."""

    image_ids: tuple[str, ...]
    labels: tuple[str, ...]
    raw: Array
    """[k, n, L] probabilities of each fold, not calibrated."""
    calibrated: Array
    """[k, n, L] probabilities of each fold, calibrated by the run's decision rules."""
    thresholds: tuple[float, ...]
    """[L] of calibrated probabilities: each label's point of Youden."""
    features: tuple[Array, ...] = ()
    """Of each fold: coordinates [n, d] of the images in its feature space; empty unless asked for."""
    lesions: tuple[Lesion, ...] = ()
    """What the models see of each photograph; empty for images of a data set, and where they see whole images."""

    @property
    def probability(self) -> Array:
        """[n, L] calibrated probabilities: the mean over the folds."""
        return _mean_over_folds(self.calibrated)

    @property
    def raw_mean(self) -> Array:
        """[n, L] the mean over the folds of what is not calibrated."""
        return _mean_over_folds(self.raw)

    @property
    def positive(self) -> npt.NDArray[np.bool_]:
        """[n, L] Whether an image reaches the threshold of a label."""
        return self.probability >= np.asarray(self.thresholds, dtype=np.float32)

    def table(self) -> pd.DataFrame:
        """A row per image: ``image_id``, each label's probability, and ``<label>_positive`` at its threshold."""
        table = pd.DataFrame({"image_id": self.image_ids})
        for column, label in enumerate(self.labels):
            table[label] = self.probability[:, column]
            table[f"{label}_positive"] = self.positive[:, column]
        return table


def _mean_over_folds(probability: Array) -> Array:
    return np.asarray(np.mean(probability, axis=0, dtype=np.float64), dtype=np.float32)

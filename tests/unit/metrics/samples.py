"""Made-up predictions of lesions with several images each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from melanoma_dist.metrics.classification import Metrics
from melanoma_dist.metrics.weighted import ISIC_SCORES


@dataclass(frozen=True)
class Samples:
    truth: npt.NDArray[np.float32]
    probability: npt.NDArray[np.float32]
    group: npt.NDArray[np.int_]


def exclusive(labels: int, images: int, lesions: int, seed: int = 0, digits: int | None = None) -> Samples:
    """Each lesion has one of the labels or none; a tenth of the answers is unknown; rounding makes ties."""
    rng = np.random.default_rng(seed)
    of_lesion = np.eye(labels + 1)[rng.integers(labels + 1, size=lesions)][:, :labels]
    group = np.concatenate([np.arange(lesions), rng.integers(lesions, size=images - lesions)])
    logit = 2 * of_lesion - 1 + rng.normal(0, 0.7, (lesions, labels))
    score = logit[group] + rng.normal(0, 0.7, (images, labels))
    probability = 1 / (1 + np.exp(-score))
    truth = np.where(rng.random((images, labels)) < 0.1, np.nan, of_lesion[group])
    if digits is not None:
        probability = probability.round(digits)
    return Samples(truth.astype(np.float32), probability.astype(np.float32), group)


def binary(lesions: int, rng: np.random.Generator, images_of_one: int = 5) -> Samples:
    """One label, a third of the lesions positive, 1 to ``images_of_one`` images each, alike within a lesion.

    Scores are normal: 1.5 apart, standard deviation 0.9 between lesions and 0.5 between a lesion's images.
    """
    positive = np.arange(lesions) < lesions // 3
    group = np.repeat(np.arange(lesions), rng.integers(1, images_of_one + 1, lesions))
    score = (1.5 * positive + rng.normal(0, 0.9, lesions))[group] + rng.normal(0, 0.5, len(group))
    probability = 1 / (1 + np.exp(-score))
    return Samples(positive[group, None].astype(np.float32), probability[:, None].astype(np.float32), group)


def metric_of(metrics: Metrics, row: str, metric: str) -> float | None:
    """One metric by the row and the name that it has in the columns of a bootstrap."""
    if row == ISIC_SCORES:
        return metrics.isic_scores[metric]
    rows = {**metrics.labels, "macro": metrics.macro, "micro": metrics.micro}
    return rows[row].value(metric)

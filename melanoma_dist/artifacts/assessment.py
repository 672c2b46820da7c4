"""The assessment of a table of predictions: a part of ``summary.json`` and of ``evaluation.json``."""

from __future__ import annotations

from dataclasses import dataclass

from melanoma_dist.metrics.classification import Metrics, PerMetric
from melanoma_dist.metrics.intervals import MetricInterval, Undefined


@dataclass(frozen=True)
class DelongInterval:
    """An AUC with the interval of its clustered DeLong variance."""

    auc: float
    low: float
    high: float
    standard_error: float


@dataclass(frozen=True, kw_only=True)
class AssessedMetrics(Metrics):
    """Metrics with their intervals."""

    intervals: dict[str, PerMetric[MetricInterval]]
    """By the bootstrap over groups: of each label, ``macro`` and ``micro``."""
    isic_score_intervals: dict[str, MetricInterval]
    delong: dict[str, DelongInterval | Undefined]
    """By label."""


@dataclass(frozen=True)
class BootstrapSettings:
    """How the intervals were drawn."""

    resamples: int
    seed: int
    level: float


@dataclass(frozen=True)
class Assessment:
    """Every metric of a table of predictions, per image and per lesion."""

    images: int
    lesions: int
    contradictory: int
    """Answers that the images of one lesion contradict, which do not count per lesion."""
    by_image: AssessedMetrics
    by_lesion: AssessedMetrics
    bootstrap: BootstrapSettings
    thresholds: dict[str, float]
    """Probability from which each label is called positive."""
    by_patient: bool = False
    """Whether a group, and so a draw of a resample, is all images of a patient: where the tables name patients."""

    @property
    def groups(self) -> str:
        """The word for what is resampled."""
        return "patients" if self.by_patient else "lesions"

    @property
    def resampled(self) -> str:
        """What the resamples draw, in words: the coarser of lesions and patients."""
        return "whole patients (all images of a patient together)" if self.by_patient else "whole lesions"

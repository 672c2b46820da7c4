"""``comparison.json`` of segmenters: the scores of each run, and the differences of each pair on the same images."""

from __future__ import annotations

from dataclasses import dataclass, field

from melanoma_dist.artifacts.run_record import Environment
from melanoma_dist.metrics.intervals import Interval, Undefined

SCHEMA = 1
Scores = dict[str, Interval | Undefined]
"""By score: the mean over images, with its interval over lesions."""


@dataclass(frozen=True, kw_only=True)
class ComparedSegmenter:
    """One run of a comparison."""

    name: str
    folder: str
    encoder: str
    seed: int
    evaluation: int | None
    """Number of the evaluation that scored the images; None out of fold."""
    ordinal: int
    """Which evaluation on any of these images it was, from 1; 1 out of fold."""
    scores: Scores


@dataclass(frozen=True)
class SegmenterPair:
    """The differences of two runs: the first minus the second, image by image."""

    first: str
    second: str
    same_models: bool
    differences: Scores
    simultaneous: Scores
    """With intervals that hold for all pairs at once."""


@dataclass(frozen=True, kw_only=True)
class SegmenterComparison:
    """A comparison of segmenters."""

    synthetic: bool
    holdout: str | None
    """None: out of fold."""
    images: int
    lesions: int
    data: str
    """Fingerprint of the data set."""
    resamples: int
    simultaneous_level: float
    runs: tuple[ComparedSegmenter, ...]
    pairs: tuple[SegmenterPair, ...]
    conclusions: tuple[str, ...]
    limits: tuple[str, ...]
    environment: Environment
    finished: str
    schema: int = field(default=SCHEMA)

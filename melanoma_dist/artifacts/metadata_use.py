"""What metadata do for a model, and what they say without an image: a part of a run's summary."""

from __future__ import annotations

from dataclasses import dataclass

from melanoma_dist.metrics.intervals import Interval, Undefined


@dataclass(frozen=True)
class SourceAucs:
    """Out-of-fold AUCs of the headline label on the images of one source, or on all."""

    source: str
    images: int
    """With a known answer."""
    positives: int
    informed: Interval | Undefined
    """Of the model that is told the metadata."""
    without: Interval | Undefined
    """Of the same model, as if all were unknown."""
    difference: Interval | Undefined
    """Told less without, of the same images."""
    alone: Interval | Undefined
    """Of the metadata without the image, by a logistic regression that was fitted on the other folds of all sources."""


@dataclass(frozen=True)
class Shortcut:
    """How well a logistic regression predicts the headline label from some facts without the image."""

    facts: str
    auc: Interval | Undefined
    """Out of fold, of all images."""
    warns: bool
    """Whether it is high enough that a gain over all sources may be no gain within any."""


@dataclass(frozen=True)
class MetadataUse:
    """The metadata of a run."""

    fields: tuple[str, ...]
    """What the model takes; empty for a model of the image alone, which has shortcuts and no sources."""
    label: str
    """The headline label, whose AUCs these are."""
    sources: tuple[SourceAucs, ...]
    """All images first, then each source if there are several."""
    shortcuts: tuple[Shortcut, ...]

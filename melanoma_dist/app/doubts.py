"""What makes the answers for an image doubtful, as plain sentences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from melanoma_dist.app.inspection import BLURRED, Reason
from melanoma_dist.app.scoring import KnownImage, ScoredImage, Scores
from melanoma_dist.config.label_sets import LabelSet
from melanoma_dist.config.region import RegionConfig
from melanoma_dist.inference.lesion_masks import Lesion
from melanoma_dist.train.region import LOW_QUALITY


@dataclass(frozen=True)
class Limits:
    """What images of a run are compared with."""

    labels: LabelSet
    thresholds: tuple[float, ...]
    """Calibrated probability from which each label is called."""
    side: int
    """Pixels of a side of the models' input."""
    metadata: tuple[str, ...] = ()
    """What the models take beside the image."""
    sight: RegionConfig = field(default_factory=RegionConfig)
    """What the models see of an image."""


@dataclass(frozen=True)
class Doubts:
    """The doubts about one readable image."""

    trained_as: KnownImage | None
    """The training image that it is or copies, if one is known."""
    shorter_side: int
    """Pixels of the file's shorter side."""
    side: int
    """Pixels of a side of the models' input."""
    blurred: bool
    novelty: float
    """How unlike the training images it is, from 1 on too much; NaN if that is not known."""
    disagree: dict[str, int]
    """Labels that some folds call and others do not, with the number of folds that do."""
    folds: int
    lesion: Lesion | None = None
    """None for a run that sees whole images."""

    @property
    def too_small(self) -> bool:
        """Whether the models see more pixels than the image has."""
        return self.shorter_side < self.side

    @property
    def out_of_distribution(self) -> bool:
        """Whether it is less like the training images than 99 % of the run's own unseen images."""
        return self.novelty >= 1

    @property
    def sentences(self) -> list[str]:
        """All doubts, the gravest first; none for an image without doubts."""
        return [sentence for _, sentence in self._all()]

    @property
    def reasons(self) -> list[Reason]:
        """The same for programs."""
        return [reason for reason, _ in self._all()]

    def _all(self) -> Iterator[tuple[Reason, str]]:
        if self.trained_as is not None:
            yield _training_copy(self.trained_as), f"The run was trained on this image: it is {self.trained_as}."
        if self.out_of_distribution:
            yield (
                Reason("out_of_distribution", {"novelty": float(self.novelty)}),
                "Unlike the training images, perhaps no dermoscopic photograph: its distance from them is "
                f"{self.novelty:.2f} times the limit.",
            )
        if self.lesion is not None and not self.lesion.trusted:
            yield _unseen_lesion(self.lesion) if self.lesion.mask == "none" else _unseen_mask(self.lesion)
        if self.too_small:
            yield (
                Reason("too_small", {"shorter_side": self.shorter_side, "side": self.side}),
                f"Too small: its shorter side has {self.shorter_side} pixels, the models see {self.side}.",
            )
        if self.blurred:
            yield Reason("blurred"), "Blurred: it shows less detail than the models can see."
        if self.disagree:
            calls = ", ".join(f"{label} (called by {count} of {self.folds})" for label, count in self.disagree.items())
            yield (
                Reason("folds_disagree", {"calls": self.disagree, "folds": self.folds}),
                (f"The folds disagree: {calls}."),
            )


def _training_copy(image: KnownImage) -> Reason:
    if image.correlation is None:
        return Reason("trained_on_file", {"image": image.image_id})
    return Reason("trained_on_copy", {"image": image.image_id, "correlation": image.correlation})


def _unseen_lesion(lesion: Lesion) -> tuple[Reason, str]:
    if lesion.box is None:
        return Reason("no_lesion"), "No lesion was found: the models see the whole image, unlike in their training."
    return (
        Reason("doubtful_lesion", {"quality": float(lesion.quality), "least": LOW_QUALITY}),
        f"{_doubtful_outline(lesion)}: the models see the whole image.",
    )


def _unseen_mask(lesion: Lesion) -> tuple[Reason, str]:
    if lesion.box is None:
        return Reason("no_mask"), "No lesion was found: the models see the whole image with an empty mask."
    return (
        Reason("doubtful_mask", {"quality": float(lesion.quality), "least": LOW_QUALITY}),
        f"{_doubtful_outline(lesion)}: the models see the whole image with an empty mask.",
    )


def _doubtful_outline(lesion: Lesion) -> str:
    agreement = f"expected agreement {lesion.quality:.2f}, at least {LOW_QUALITY} is trusted"
    return f"The outline of the lesion is doubtful ({agreement})"


def find_doubts(image: ScoredImage, scores: Scores, limits: Limits) -> Doubts:
    """The doubts about an image that was predicted."""
    calls = (scores.folds >= np.asarray(limits.thresholds, dtype=np.float32)).sum(axis=0)
    folds = len(scores.folds)
    disagree = {label: int(count) for label, count in zip(limits.labels, calls, strict=True) if 0 < count < folds}
    shorter = min(image.photo.source_width, image.photo.source_height)
    blurred = image.blur >= BLURRED
    return Doubts(image.trained_as, shorter, limits.side, blurred, scores.novelty, disagree, folds, scores.lesion)

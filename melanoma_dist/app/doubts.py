"""What makes the answers for an image doubtful, as plain sentences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from melanoma_dist.app.inspection import BLURRED
from melanoma_dist.app.scoring import ScoredImage, Scores


@dataclass(frozen=True)
class Limits:
    """What images of a run are compared with."""

    labels: tuple[str, ...]
    thresholds: tuple[float, ...]
    """Calibrated probability from which each label is called."""
    side: int
    """Pixels of a side of the models' input."""


@dataclass(frozen=True)
class Doubts:
    """The doubts about one readable image."""

    trained_as: str
    """Which training image it is or copies; empty if none is known."""
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
        doubts = []
        if self.trained_as:
            doubts.append(f"The run was trained on this image: it is {self.trained_as}.")
        if self.out_of_distribution:
            doubts.append(
                "Unlike the training images, perhaps no dermoscopic photograph: its distance from them is "
                f"{self.novelty:.2f} times the limit."
            )
        if self.too_small:
            doubts.append(f"Too small: its shorter side has {self.shorter_side} pixels, the models see {self.side}.")
        if self.blurred:
            doubts.append("Blurred: it shows less detail than the models can see.")
        if self.disagree:
            calls = ", ".join(f"{label} (called by {count} of {self.folds})" for label, count in self.disagree.items())
            doubts.append(f"The folds disagree: {calls}.")
        return doubts


def find_doubts(image: ScoredImage, scores: Scores, limits: Limits) -> Doubts:
    """The doubts about an image that was predicted."""
    calls = (scores.folds >= np.asarray(limits.thresholds, dtype=np.float32)).sum(axis=0)
    folds = len(scores.folds)
    disagree = {label: int(count) for label, count in zip(limits.labels, calls, strict=True) if 0 < count < folds}
    shorter = min(image.photo.source_width, image.photo.source_height)
    blurred = image.blur >= BLURRED
    return Doubts(image.trained_as, shorter, limits.side, blurred, scores.novelty, disagree, folds)

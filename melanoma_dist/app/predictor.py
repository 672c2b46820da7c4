"""The one predictor of `predict` and `serve`: a run's ensemble, its decision rules, and the images that it has seen."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from melanoma_dist import console
from melanoma_dist.app.doubts import Limits
from melanoma_dist.app.inspection import InspectedPhoto
from melanoma_dist.app.known_images import KnownImages
from melanoma_dist.app.scoring import ScoredImage, score_photos
from melanoma_dist.config.places import DECISION_RULES
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.errors import UserError
from melanoma_dist.inference.ensemble import Ensemble, one_process
from melanoma_dist.inference.segmenter import fingerprint
from melanoma_dist.inference.trained_run import TrainedRun
from melanoma_dist.train.fold_data import input_format_of


@dataclass(frozen=True)
class Predictor:
    """All that an answer about an image needs."""

    run: TrainedRun
    ensemble: Ensemble
    limits: Limits
    known: KnownImages | None
    """None if the run's own data set cannot be read."""
    tta: int
    """Orientations of each image that are averaged."""

    @classmethod
    def load(
        cls, run: TrainedRun, known: KnownImages | None, gpus: int | None, threads: int | None, tta: int | None
    ) -> Predictor:
        """Load the weights of all folds; see `Ensemble.of`. ``tta``: as many as in the run if None."""
        ensemble = Ensemble.of(run, one_process(gpus, threads))
        thresholds = run.decision_rules.thresholds(run.labels, run.config.threshold)
        side = input_format_of(ensemble.units[0]).size
        limits = Limits(run.labels, thresholds, side, ensemble.metadata_fields, run.config.region)
        _ = ensemble.segmenter  # its errors come before the first image
        return cls(run, ensemble, limits, known, tta or run.config.input.tta)

    @property
    def fingerprint(self) -> str:
        """The SHA-256 of the weights of all folds, the decision rules and the segmenter, if the run has one."""
        weights = self.ensemble.weights_sha256
        parts = [*(weights[fold] for fold in sorted(weights)), self.run.summary.files[DECISION_RULES]]
        if self.ensemble.segmenter is not None:
            parts.append(fingerprint(self.ensemble.segmenter))
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    @property
    def checked(self) -> bool:
        """Whether it is known which images the run was trained on."""
        return self.known is not None

    @property
    def own_dataset(self) -> Dataset | None:
        """The run's data set; None if it cannot be read."""
        return None if self.known is None else self.known.own

    def predict(
        self, photos: Sequence[InspectedPhoto], batch_size: int | None = None, neighbours: int = 0
    ) -> list[ScoredImage]:
        """Score photos, in one batch by default, and mark those that the run has seen. The answers have no pixels.

        Raises as `Ensemble.predict` does.
        """
        scored = list(score_photos(self.ensemble, photos, self.tta, batch_size or max(1, len(photos)), neighbours))
        if self.known is not None:
            scored = [self.known.mark(image) for image in scored]
        return [replace(image, photo=replace(image.photo, jpeg=None)) for image in scored]


def open_known_images(run: TrainedRun, moved_to: str | None) -> KnownImages | None:
    """The images of the run's own data set; None, after a message, if it cannot be read and was not named."""
    try:
        return KnownImages(run, run.dataset(moved_to))
    except UserError as error:
        if moved_to is not None:
            raise
        console.info(f"not checked: which of these images the run was trained on. {error}")
        return None

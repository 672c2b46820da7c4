"""The log of evaluations on a holdout: RUN/evaluations/NNN-<name>/, one folder for each, never overwritten.

Every evaluation is logged before any image is scored, so that an interrupted one is known too. It is finished when its
record has results. Whatever is decided after an evaluation is no longer independent of its images.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from melanoma_dist.artifacts.evaluation import (
    EVALUATION,
    EvaluatedData,
    EvaluationRecord,
    EvaluationResults,
    MaskResults,
    write_evaluation,
)
from melanoma_dist.artifacts.run_record import now
from melanoma_dist.errors import DataError
from melanoma_dist.evaluate.holdout.access_history import (
    EVALUATIONS,
    PREDICTIONS,
    read_evaluations,
    read_history,
    write_images,
)
from melanoma_dist.inference.images import Selection, absent_labels
from melanoma_dist.inference.segmenter import TrainedSegmenter
from melanoma_dist.inference.trained_run import TrainedRun
from melanoma_dist.metrics.lesions import lesions_of


@dataclass(frozen=True)
class Evaluation:
    """An evaluation that is logged."""

    path: Path
    record: EvaluationRecord

    @property
    def predictions(self) -> Path:
        """Predictions of the ensemble."""
        return self.path / PREDICTIONS

    @property
    def folds(self) -> Path:
        """Predictions of each fold, not calibrated."""
        return self.path / "folds.parquet"

    def finish(self, results: EvaluationResults | MaskResults) -> EvaluationRecord:
        """Add the results to the record. Returns the whole record."""
        if isinstance(results, MaskResults):
            record = replace(self.record, masks=results)
        else:
            record = replace(self.record, results=results)
        write_evaluation(self.path, record)
        return record


def log_evaluation(
    run: TrainedRun | TrainedSegmenter, selection: Selection, tta: int, models: dict[int, str]
) -> Evaluation:
    """Log that an evaluation starts. ``models`` has the hash of each fold's weights.

    Writes what identifies each image beside the record. Raises DataError where an earlier record cannot be read, and
    where this run was evaluated before with other weights.
    """
    path = run.folder.path.resolve()
    _refuse_other_models(path, models)
    images = selection.images
    history = read_history(path, images, run.config.task)
    record = EvaluationRecord(
        number=history.number,
        name=selection.name,
        kind=selection.kind,
        synthetic=images.dataset.synthetic or run.synthetic,
        started=now(),
        data=EvaluatedData(
            folder=images.dataset.folder.name,
            fingerprint=images.dataset.fingerprint,
            images=len(images.rows),
            lesions=int(lesions_of(images.table).nunique()),
        ),
        tta=tta,
        images_sha256=images.sha256(),
        models=models,
        earlier=history.earlier,
        seen_before=history.seen_before,
        labels=tuple(run.labels),
        labels_absent=absent_labels(images, run.labels) if run.labels else {},
        excluded=dict(selection.related),
        task=run.config.task,
    )
    folder = path / EVALUATIONS / f"{history.number:03d}-{selection.name}"
    folder.mkdir()
    write_images(images, folder)
    write_evaluation(folder, record)
    return Evaluation(folder, record)


def _refuse_other_models(run: Path, models: dict[int, str]) -> None:
    for each in read_evaluations((run / EVALUATIONS).glob(f"*/{EVALUATION}")):
        if each.record.models != models:
            raise DataError(
                f"{run / 'model'}: the weights differ from those of evaluation {each.record.number} of "
                f"{each.record.started[:10]} ({each.folder / EVALUATION}). One run has one set of models: bring them "
                "back, or train under another --name."
            )

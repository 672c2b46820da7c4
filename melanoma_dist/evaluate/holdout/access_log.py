"""The record of looks at unseen images: RUN/evaluations/NNN-<what>/, one folder for each, never overwritten.

A look is recorded before anything is computed, so that an interrupted one is known too; it is complete when it has a
time of ``finished``. Images are new once: whatever is decided after a look is no longer independent of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melanoma_dist.artifacts.run_folder import hashes_of, made_with, now, write_json
from melanoma_dist.errors import DataError
from melanoma_dist.evaluate.holdout.access_history import (
    EVALUATIONS,
    PREDICTIONS,
    RECORD,
    look_back,
    read_records,
    write_images,
)
from melanoma_dist.inference.images import Chosen, absent_labels
from melanoma_dist.inference.trained_run import TrainedRun


@dataclass(frozen=True)
class Evaluation:
    """A look that has begun."""

    path: Path
    record: dict[str, Any]

    @property
    def predictions(self) -> Path:
        """What the ensemble says of each image."""
        return self.path / PREDICTIONS

    @property
    def folds(self) -> Path:
        """What each fold says, not calibrated."""
        return self.path / "folds.parquet"

    @property
    def ordinal(self) -> int:
        """Which look at any of these images it is, from 1."""
        return len(self.record["earlier"]) + 1

    def finish(self, found: dict[str, Any]) -> dict[str, Any]:
        """Add what was found, and when. Returns the whole record."""
        files = hashes_of(self.predictions, self.folds)
        whole = {**self.record, **found, "files": files, "finished": now(), "made_with": made_with()}
        write_json(self.path / RECORD, whole)
        return whole


def begin(subject: TrainedRun, chosen: Chosen, tta: int, models: dict[str, str]) -> Evaluation:
    """Record that a look begins. ``models`` has the hash of each fold's weights.

    What identifies each image is kept beside the record. Raises DataError where an earlier record cannot be read, and
    where this run was judged before with other weights.
    """
    run = subject.folder.path.resolve()
    _refuse_other_models(run, models)
    past = look_back(run, chosen.images)
    table = chosen.images.table
    record = {
        "schema": 2,
        "number": past.number,
        "what": chosen.what,
        "kind": chosen.kind,
        "synthetic": chosen.images.dataset.synthetic or subject.synthetic,
        "begun": now(),
        "data": {
            "folder": chosen.images.dataset.folder.name,
            "fingerprint": chosen.images.dataset.fingerprint,
            "images": len(table),
            "lesions": int(table["group"].nunique()),
        },
        "tta": tta,
        "images_sha256": chosen.images.sha256(),
        "models": models,
        "earlier": past.earlier,
        "seen_before": past.seen,
        "labels": list(subject.labels),
        "labels_absent": absent_labels(chosen.images, subject.labels),
    }
    path = run / EVALUATIONS / f"{past.number:03d}-{chosen.what}"
    path.mkdir()
    write_images(chosen.images, path)
    write_json(path / RECORD, record)
    return Evaluation(path, record)


def _refuse_other_models(run: Path, models: dict[str, str]) -> None:
    for each in read_records((run / EVALUATIONS).glob(f"*/{RECORD}")):
        if each.record["models"] != models:
            raise DataError(
                f"{run / 'model'}: the weights are not those that evaluation {each.record['number']} of "
                f"{each.record['begun'][:10]} judged ({each.path}). One run has one set of models: bring them "
                "back, or train under another --name."
            )

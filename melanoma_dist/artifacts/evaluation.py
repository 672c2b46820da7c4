"""``evaluation.json``: one evaluation of a run on images that none of its folds has seen.

The record is written before any image is scored, and again with the results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from melanoma_dist.artifacts.assessment import Assessment
from melanoma_dist.artifacts.records import read_record, require_keys, write_record
from melanoma_dist.artifacts.run_record import Environment
from melanoma_dist.artifacts.summary import require_assessed
from melanoma_dist.config.run import Task
from melanoma_dist.metrics.calibration import CalibrationQuality
from melanoma_dist.metrics.classification import Metrics
from melanoma_dist.metrics.intervals import Interval, Undefined
from melanoma_dist.metrics.operating_points import DecisionCurve, EvaluatedPoint
from melanoma_dist.metrics.subgroups import Subgroup

EVALUATION = "evaluation.json"
SCHEMA = 3
_SHOWN = 5  # images in a sentence
_LOG_ONLY = (1, 2)  # earlier schemas, whose log is read, but not their metrics
_REMEDY = "It records an evaluation on a holdout, so that it cannot be replaced: bring the file back."


@dataclass(frozen=True)
class EarlierEvaluation:
    """An evaluation on some of the same images, before this one."""

    run: str
    """The name of the run's folder."""
    number: int
    started: str | None
    """UTC; None where it is not known."""
    images: int | None
    """How many of the present images it saw; None where it is not known."""
    deleted: bool = False
    """Whether its own record is gone."""


@dataclass(frozen=True)
class EvaluatedData:
    """The data set that the images come from."""

    folder: str
    fingerprint: str
    images: int
    """That are evaluated."""
    lesions: int


@dataclass(frozen=True)
class HoldoutCalibration:
    """One label's calibration, before and after the decision rules apply."""

    before: CalibrationQuality
    after: CalibrationQuality


@dataclass(frozen=True, kw_only=True)
class EvaluationResults:
    """The metrics of an evaluation."""

    ensemble: Assessment
    folds: dict[int, Metrics]
    """Of each fold alone."""
    prevalence: float | None
    """Of the headline label, for PPV and NPV."""
    operating_points: dict[str, tuple[EvaluatedPoint, ...] | Undefined]
    calibration: dict[str, HoldoutCalibration]
    decision_curve: dict[str, DecisionCurve | None]
    subgroups: tuple[Subgroup, ...]
    files: dict[str, str]
    """The sha256 of both tables of predictions, by file name."""
    finished: str
    environment: Environment


@dataclass(frozen=True, kw_only=True)
class MaskResults:
    """The scores of a segmenter's masks."""

    scores: dict[str, Interval | Undefined]
    """Mean of each score over images, with intervals over lesions; and the share of failures."""
    files: dict[str, str]
    """The sha256 of the table of scores, by file name."""
    finished: str
    environment: Environment


@dataclass(frozen=True, kw_only=True)
class EvaluationRecord:
    """One evaluation."""

    number: int
    """Among those of its run, from 1."""
    name: str
    """Of the holdout, or of the data set's folder."""
    kind: Literal["holdout", "data"]
    synthetic: bool
    started: str
    """UTC, ISO 8601."""
    data: EvaluatedData
    tta: int
    """Orientations of each image that are averaged."""
    images_sha256: str
    models: dict[int, str]
    """The sha256 of each fold's weights."""
    earlier: tuple[EarlierEvaluation, ...]
    """By time, those of unknown time last."""
    seen_before: int
    """How many of the images were evaluated before."""
    labels: tuple[str, ...]
    labels_absent: dict[str, str]
    """Why the images cannot evaluate a label, for those that they cannot."""
    excluded: dict[str, str] = field(default_factory=dict)
    """Images left out because the run was trained on them or on related ones: id to reason."""
    results: EvaluationResults | None = None
    """None until it is finished, and where an earlier version wrote the record."""
    task: Task = "classification"
    masks: MaskResults | None = None
    """The results of a segmenter; None until it is finished."""
    schema: int = field(default=SCHEMA)

    @property
    def ordinal(self) -> int:
        """Which evaluation on any of these images it is, from 1: from the second on they are no longer unbiased."""
        return len(self.earlier) + 1

    @property
    def exclusion(self) -> str:
        """How many images were left out and why, as a sentence; empty if none was."""
        if not self.excluded:
            return ""
        return (
            f"{len(self.excluded)} images are left out, because the run was trained on them, on their lesions, on "
            f"their patients or on copies of them: {examples(self.excluded)}."
        )


def examples(reasons: Mapping[str, str]) -> str:
    """The first few images with their reasons, and the number of the others."""
    first = "; ".join(f"{name} ({why})" for name, why in islice(reasons.items(), _SHOWN))
    return f"{first}; and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else first


def write_evaluation(folder: Path, record: EvaluationRecord) -> None:
    """Write ``evaluation.json`` into the folder of an evaluation."""
    write_record(folder / EVALUATION, record)


def read_evaluation(folder: Path) -> EvaluationRecord:
    """Read ``evaluation.json``. Raises DataError for a file that is missing or corrupt.

    A record of an earlier version has no ``results``: it logs the evaluation, and that counts.
    """
    path = folder / EVALUATION
    record = read_record(path, EvaluationRecord, _REMEDY, (SCHEMA, *_LOG_ONLY), _upgrade)
    if record.results is not None:
        results, labels = record.results, record.labels
        require_assessed(path, _REMEDY, results.ensemble, labels)
        for metrics in results.folds.values():
            require_keys(path, _REMEDY, labels, folds=metrics.labels)
        require_keys(path, _REMEDY, labels, calibration=results.calibration, decision_curve=results.decision_curve)
        require_keys(path, _REMEDY, labels, operating_points=results.operating_points)
        require_keys(path, _REMEDY, record.models, folds=results.folds)
    return record


def _upgrade(tree: dict[str, Any]) -> dict[str, Any]:
    """The log of an evaluation by an earlier version, with the field names of today."""
    if tree.get("schema") not in _LOG_ONLY:
        return tree
    names = {"what": "name", "begun": "started"}
    renamed = {names.get(name, name): value for name, value in tree.items()}
    earlier, data = renamed.get("earlier") or [], renamed.get("data")
    if isinstance(earlier, list):
        earlier = [
            {names.get(name, name): value for name, value in each.items()} if isinstance(each, dict) else each
            for each in earlier
        ]
    # The first version compared whole sets of images, and had no ``seen_before``.
    evaluated = data.get("images") if earlier and isinstance(data, dict) else 0
    logged = {name: value for name, value in renamed.items() if name in _LOGGED}
    return {"seen_before": evaluated, "labels_absent": {}, **logged, "earlier": earlier}


_LOGGED = set(EvaluationRecord.__dataclass_fields__) - {"results", "masks"}

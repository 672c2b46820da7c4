"""``summary.json``: every number of a finished run. It is written last, so a run that has it is finished."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Le, MinLen

from melanoma_dist.artifacts.assessment import Assessment
from melanoma_dist.artifacts.metadata_use import MetadataUse
from melanoma_dist.artifacts.records import read_record, require_keys, write_record
from melanoma_dist.artifacts.run_record import Environment, Identity
from melanoma_dist.config.label_sets import MELANOMA, LabelSet
from melanoma_dist.config.places import SUMMARY as SUMMARY
from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.metrics.calibration import CalibrationQuality
from melanoma_dist.metrics.classification import Metrics, PerMetric
from melanoma_dist.metrics.cross_validation import FoldSpread, OverFolds, VarianceComponents
from melanoma_dist.metrics.intervals import Undefined
from melanoma_dist.metrics.operating_points import DecisionCurve, OperatingPoint
from melanoma_dist.metrics.subgroups import Subgroup

SCHEMA = 3
AUC_OF = "AUC of "
REFINALIZE = (
    "Bring the file back, or delete summary.json and run the run's training command again, with the --runs and --name "
    "of its folder: it computes the metrics from the folds' own predictions, and trains nothing."
)
"""The remedy for corrupt or missing files of a finished run."""


@dataclass(frozen=True)
class TrainedData:
    """The data that a run was trained on."""

    folder: str
    """The folder's name."""
    fingerprint: str
    size: int
    """Pixels of the shorter side of its images."""
    images: int
    """In the folds."""
    lesions: int
    kept_out: int
    """Images in holdouts, or excluded."""
    years: tuple[str, ...]
    incomplete_tables: tuple[str, ...] = ()
    """Tables that were accepted although they leave out images or lesions, and what is unknown for it."""
    terms: dict[str, str] = field(default_factory=dict)
    """Licence and citation of collections that are no challenge, where they are known."""
    patients: int | None = None
    """Known patients in the folds; None if the tables name none. Then a patient may be in several folds."""
    lesions_unknown: int = 0
    """Images in the folds whose lesion no table names. Each counts as a lesion of its own, or as that of its copies."""


@dataclass(frozen=True)
class LabelCalibration:
    """One label's calibration out of fold, before and after."""

    before: CalibrationQuality
    after: dict[str, CalibrationQuality]
    """By kind of calibration, cross-fitted: the calibrator of each fold was fitted on the other folds."""


@dataclass(frozen=True)
class Calibration:
    """The calibration of all labels."""

    used: str
    """The kind that the decision rules use."""
    labels: dict[str, LabelCalibration | Undefined]


@dataclass(frozen=True)
class SeedRepeats:
    """AUCs of every fold with every seed, and where their variance comes from."""

    seeds: tuple[int, ...]
    auc: dict[str, tuple[tuple[float | None, ...], ...]]
    """By label, [folds][seeds]."""
    components: dict[str, VarianceComponents | Undefined]
    over_folds: dict[str, OverFolds | Undefined]


@dataclass(frozen=True)
class FoldTraining:
    """What the training of a fold took."""

    epochs: int
    best_epoch: int
    seconds: float
    device: str
    device_seconds: float
    """Seconds times devices."""
    images_per_s: float
    input_wait_share: float
    """Share of the time that the training waited for images, 0 to 1."""


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """Every number of a run, from the predictions of its folds."""

    synthetic: bool
    backbone: str
    seed: int
    repeats: int
    data: TrainedData
    threshold: Annotated[float, Ge(0), Le(1)]
    """Raw probability from which ``out_of_fold`` and ``folds`` call a label positive."""
    labels: tuple[str, ...]
    out_of_fold: Assessment
    folds: Annotated[dict[int, Metrics], MinLen(1)]
    over_folds: dict[str, PerMetric[FoldSpread]]
    """By label, and of ``macro``."""
    calibration: Calibration
    operating_points: dict[str, tuple[OperatingPoint, ...] | Undefined]
    """By label; thresholds are calibrated probabilities."""
    decision_curve: dict[str, DecisionCurve | None]
    """By label, of cross-fitted probabilities; None where too few positives or negatives calibrate them."""
    subgroups: tuple[Subgroup, ...]
    """Of the headline label."""
    seed_repeats: SeedRepeats | None
    """None for a single seed."""
    training: dict[int, FoldTraining]
    """By fold, of the first seed."""
    incidents: tuple[str, ...]
    seconds_of_last_command: float
    identity: Identity
    environment: Environment
    finished: str
    """UTC, ISO 8601."""
    files: dict[str, str]
    """The sha256 of the predictions and the decision rules, by file name."""
    advice: tuple[str, ...] = ()
    """What may make the next training better, by the curves of this one."""
    metadata: MetadataUse | None = None
    """None for a model of the image alone."""
    headline: str = AUC_OF + MELANOMA
    """The metric that leads: the AUC of the headline label."""
    schema: int = field(default=SCHEMA)

    @property
    def label_set(self) -> LabelSet:
        """The labels, and the one that leads."""
        return LabelSet(self.labels, self.headline.removeprefix(AUC_OF))


def write_summary(folder: Path, summary: RunSummary) -> None:
    """Write ``summary.json`` into the folder of a run."""
    write_record(folder / SUMMARY, summary)


def read_summary(folder: Path) -> RunSummary:
    """Read ``summary.json`` of a run. Raises DataError for a file that is missing, corrupt, or of another version."""
    path = folder / SUMMARY
    summary = read_record(path, RunSummary, REFINALIZE, (SCHEMA,), partial(_refuse_other_task, folder))
    _require_labels(path, summary)
    _require_folds(path, summary)
    return summary


def _refuse_other_task(folder: Path, tree: dict[str, object]) -> dict[str, object]:
    if "task" in tree:
        raise ConfigError(f"{folder}: is a run of `segment`. This command takes the run of a classifier.")
    return tree


def _require_labels(path: Path, summary: RunSummary) -> None:
    labels = summary.labels
    headline = summary.headline.removeprefix(AUC_OF)
    if len(set(labels)) != len(labels) or headline not in labels:
        raise DataError(
            f"{path}: labels is {list(labels)}, must be different labels with {headline} among them. {REFINALIZE}"
        )
    require_assessed(path, REFINALIZE, summary.out_of_fold, labels)
    for metrics in summary.folds.values():
        require_keys(path, REFINALIZE, labels, folds=metrics.labels)
    require_keys(
        path,
        REFINALIZE,
        labels,
        calibration=summary.calibration.labels,
        operating_points=summary.operating_points,
        decision_curve=summary.decision_curve,
    )
    require_keys(path, REFINALIZE, [*labels, "macro"], over_folds=summary.over_folds)


def _require_folds(path: Path, summary: RunSummary) -> None:
    require_keys(path, REFINALIZE, summary.folds, training=summary.training)
    repeats = summary.seed_repeats
    if repeats is None:
        return
    require_keys(path, REFINALIZE, summary.labels, auc=repeats.auc)
    require_keys(path, REFINALIZE, summary.labels, components=repeats.components, over_folds=repeats.over_folds)
    if any(len(row) != len(repeats.seeds) for rows in repeats.auc.values() for row in rows):
        raise DataError(f"{path}: seed_repeats.auc must have one AUC for each fold and seed. {REFINALIZE}")


def require_assessed(path: Path, remedy: str, assessment: Assessment, labels: tuple[str, ...]) -> None:
    """Raise DataError unless an assessment is about exactly these labels."""
    for metrics in (assessment.by_image, assessment.by_lesion):
        require_keys(path, remedy, labels, labels=metrics.labels, delong=metrics.delong)
        require_keys(path, remedy, [*labels, "macro", "micro"], intervals=metrics.intervals)
        require_keys(path, remedy, metrics.isic_scores, isic_score_intervals=metrics.isic_score_intervals)
    require_keys(path, remedy, labels, thresholds=assessment.thresholds)

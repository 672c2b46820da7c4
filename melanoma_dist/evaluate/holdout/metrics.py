"""The metrics of an evaluation: of the ensemble and of each fold, by decision rules that never saw these images.

Shapes: n images, k folds, L labels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from melanoma_dist.artifacts.assessment import AssessedMetrics, Assessment
from melanoma_dist.artifacts.evaluation import EvaluationResults, HoldoutCalibration
from melanoma_dist.artifacts.predictions import arrays, predictions_table
from melanoma_dist.artifacts.run_record import current_environment, now
from melanoma_dist.config.label_sets import LabelSet
from melanoma_dist.evaluate.assessment import assess
from melanoma_dist.evaluate.decision_rules import decision_curve, truth_and_probability
from melanoma_dist.inference.ensemble_predictions import EnsemblePredictions
from melanoma_dist.inference.images import Images, absent_labels
from melanoma_dist.inference.trained_run import TrainedRun
from melanoma_dist.metrics.calibration import quality
from melanoma_dist.metrics.classification import METRICS, LabelMetrics, Metrics, PerMetric, Settings, compute_metrics
from melanoma_dist.metrics.intervals import MetricInterval, Undefined
from melanoma_dist.metrics.operating_points import EvaluatedPoint, evaluate_points
from melanoma_dist.metrics.subgroups import subgroups

ENSEMBLE = -1
"""The fold of the ensemble's rows."""


@dataclass(frozen=True)
class Tables:
    """Predictions of the same images in the same order."""

    raw: list[pd.DataFrame]
    """Of each fold, not calibrated."""
    calibrated: list[pd.DataFrame]
    """Of each fold, calibrated by the run's decision rules."""
    raw_mean: pd.DataFrame
    """The mean of ``raw``."""
    ensemble: pd.DataFrame
    """The mean of ``calibrated``: what is evaluated."""


def prediction_tables(images: Images, predictions: EnsemblePredictions) -> Tables:
    """The tables of an ensemble's predictions for ``images``."""
    labels, rows = predictions.labels, images.table
    truth = images.truth(labels)

    def table(fold: int, probability: npt.NDArray[np.float32]) -> pd.DataFrame:
        return predictions_table(rows, fold, labels, probability, truth)

    return Tables(
        [table(fold, values) for fold, values in enumerate(predictions.raw)],
        [table(fold, values) for fold, values in enumerate(predictions.calibrated)],
        table(ENSEMBLE, predictions.raw_mean),
        table(ENSEMBLE, predictions.probability),
    )


def compute_results(
    run: TrainedRun, images: Images, tables: Tables, prevalence: float | None, files: dict[str, str]
) -> EvaluationResults:
    """Compute the results of an evaluation; labels are called at the thresholds of their Youden points.

    ``prevalence`` is the headline label's, for PPV and NPV; None computes neither. ``files`` are the hashes of the
    tables as they are stored.
    """
    labels, rules, table = run.labels, run.decision_rules, tables.ensemble
    thresholds = rules.thresholds(labels, run.config.threshold)
    settings = Settings(thresholds, _prevalences(labels, prevalence))
    about = images.table.set_index("image_id")
    absent = absent_labels(images, labels)
    alone = [compute_metrics(*arrays(fold, labels), labels, settings) for fold in tables.calibrated]
    return EvaluationResults(
        ensemble=_mask_assessment(assess(table, labels, settings, about=images.table), absent),
        folds={fold: replace(metrics, labels=_mask(metrics, absent)) for fold, metrics in enumerate(alone)},
        prevalence=prevalence,
        operating_points={label: _evaluate_points(run, table, label) for label in labels},
        calibration={
            label: HoldoutCalibration(
                quality(*truth_and_probability(tables.raw_mean, label)), quality(*truth_and_probability(table, label))
            )
            for label in labels
        },
        decision_curve={label: decision_curve(*truth_and_probability(table, label)) for label in labels},
        subgroups=subgroups(table, about, labels.headline, thresholds[labels.headline_column]),
        files=files,
        finished=now(),
        environment=current_environment(),
    )


def _mask_assessment(assessment: Assessment, absent: dict[str, str]) -> Assessment:
    """Remove the metrics of labels that the images cannot evaluate: a share of no positives has no meaning."""
    nothing = MetricInterval(None, None, None, undefined_resamples=assessment.bootstrap.resamples)
    intervals = dict.fromkeys(absent, PerMetric(**dict.fromkeys(METRICS, nothing)))

    def mask(metrics: AssessedMetrics) -> AssessedMetrics:
        return replace(
            metrics,
            labels=_mask(metrics, absent),
            intervals={**metrics.intervals, **intervals},
            delong={**metrics.delong, **{label: Undefined(why) for label, why in absent.items()}},
        )

    return replace(assessment, by_image=mask(assessment.by_image), by_lesion=mask(assessment.by_lesion))


def _mask(metrics: Metrics, absent: dict[str, str]) -> dict[str, LabelMetrics]:
    return {label: entry.counts_alone() if label in absent else entry for label, entry in metrics.labels.items()}


def _prevalences(labels: LabelSet, prevalence: float | None) -> tuple[float | None, ...] | None:
    return None if prevalence is None else tuple(prevalence if label == labels.headline else None for label in labels)


def _evaluate_points(run: TrainedRun, table: pd.DataFrame, label: str) -> tuple[EvaluatedPoint, ...] | Undefined:
    rules = run.decision_rules.labels[label]
    if isinstance(rules, Undefined):
        return rules
    truth, probability = arrays(table, run.labels)
    return evaluate_points(rules.points, truth, probability, table["group"].to_numpy(), run.labels.index(label))

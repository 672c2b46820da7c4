"""Assess a table of predictions: every metric per image and per lesion, with intervals that respect lesions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from melanoma_dist.artifacts.assessment import AssessedMetrics, Assessment, BootstrapSettings, DelongInterval
from melanoma_dist.artifacts.predictions import arrays
from melanoma_dist.errors import DataError
from melanoma_dist.metrics.bootstrap import RESAMPLES, bootstrap
from melanoma_dist.metrics.classification import Settings, compute_metrics
from melanoma_dist.metrics.delong import delong
from melanoma_dist.metrics.intervals import LEVEL, Undefined
from melanoma_dist.metrics.lesions import by_lesion, lesions_of


def assess(
    table: pd.DataFrame,
    labels: tuple[str, ...],
    settings: Settings,
    resamples: int = RESAMPLES,
    seed: int = 0,
    about: pd.DataFrame | None = None,
) -> Assessment:
    """Compute every metric of a table of predictions, per image and per lesion (see ``lesions.by_lesion``).

    ``about`` has the manifest's rows of the images; without it each group is one lesion.
    Intervals are a bootstrap's over groups, and clustered DeLong's for AUCs. Raises DataError for a table without rows
    and TrainingError for predictions that are no probabilities.
    """
    by_patient = about is not None and "patient_id" in about
    lesion = lesions_of(about).set_axis(about["image_id"]) if about is not None and by_patient else None
    lesions, contradictory = by_lesion(table, labels, lesion)
    return Assessment(
        images=len(table),
        lesions=len(lesions),
        contradictory=contradictory,
        by_patient=by_patient,
        by_image=_assess_rows(table, labels, settings, resamples, seed),
        by_lesion=_assess_rows(lesions, labels, settings, resamples, seed),
        bootstrap=BootstrapSettings(resamples, seed, LEVEL),
        thresholds=dict(zip(labels, settings.threshold_of(labels), strict=True)),
    )


def _assess_rows(
    rows: pd.DataFrame, labels: tuple[str, ...], settings: Settings, resamples: int, seed: int
) -> AssessedMetrics:
    truth, probability = arrays(rows, labels)
    group = rows["group"].to_numpy()
    intervals = bootstrap(truth, probability, group, labels, settings, resamples, seed).intervals(LEVEL)
    return AssessedMetrics(
        **vars(compute_metrics(truth, probability, labels, settings)),
        intervals=intervals.rows,
        isic_score_intervals=intervals.isic_scores,
        delong={label: _delong(truth[:, at], probability[:, at], group) for at, label in enumerate(labels)},
    )


def _delong(
    truth: npt.NDArray[np.float32], probability: npt.NDArray[np.float32], group: npt.NDArray[Any]
) -> DelongInterval | Undefined:
    try:
        aucs = delong(truth, probability, group)
    except DataError as error:
        return Undefined(str(error))
    deviation = float(np.sqrt(aucs.covariance[0, 0]))
    return DelongInterval(float(aucs.auc[0]), *aucs.interval(level=LEVEL), deviation)

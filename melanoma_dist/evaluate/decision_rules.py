"""Fit a run's decision rules on its out-of-fold predictions, and measure how well they calibrate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from melanoma_dist.artifacts.decision_rules import USED, DecisionRules, LabelRules
from melanoma_dist.artifacts.predictions import CALIBRATED
from melanoma_dist.artifacts.summary import Calibration, LabelCalibration
from melanoma_dist.data.labels import TRUE
from melanoma_dist.errors import DataError
from melanoma_dist.metrics import operating_points
from melanoma_dist.metrics.calibration import Calibrator, Isotonic, Logistic, Temperature, quality
from melanoma_dist.metrics.intervals import Undefined
from melanoma_dist.metrics.operating_points import DecisionCurve, cost_ratio, fixed_sensitivity, youden

Floats = npt.NDArray[np.floating[Any]]
KINDS: dict[str, Callable[[Floats, Floats], Calibrator]] = {
    "temperature": Temperature.fit,
    "isotonic": Isotonic.fit,
    "logistic": Logistic.fit,
}
RULES = (fixed_sensitivity(0.80), fixed_sensitivity(0.90), fixed_sensitivity(0.95), youden(), cost_ratio(20))
_THRESHOLDS = np.round(np.arange(0.01, 0.61, 0.01), 2)  # of decision curves: what a clinician might act on


def fit_decision_rules(table: pd.DataFrame, labels: tuple[str, ...]) -> DecisionRules:
    """Fit calibrators and operating points on a table of out-of-fold predictions, raw probabilities."""
    return DecisionRules({label: _fit_label(*truth_and_probability(table, label)) for label in labels})


def _fit_label(truth: Floats, probability: Floats) -> LabelRules | Undefined:
    try:
        calibrator = KINDS[USED](truth, probability)
        calibrated = calibrator.apply(probability).astype(np.float32)
        return LabelRules(calibrator, tuple(operating_points.choose(truth, calibrated, rule) for rule in RULES))
    except DataError as error:
        return Undefined(str(error))


def calibration(table: pd.DataFrame, labels: tuple[str, ...]) -> Calibration:
    """The quality of out-of-fold probabilities, raw and after each kind of calibration (cross-fitted)."""
    return Calibration(USED, {label: _label_calibration(table, label) for label in labels})


def _label_calibration(table: pd.DataFrame, label: str) -> LabelCalibration | Undefined:
    truth, probability = truth_and_probability(table, label)
    try:
        after = {kind: quality(truth, cross_fitted(table, label, kind)) for kind in KINDS}
        return LabelCalibration(quality(truth, probability), after)
    except DataError as error:
        return Undefined(str(error))


def cross_fitted(table: pd.DataFrame, label: str, kind: str = USED) -> npt.NDArray[np.float32]:
    """Calibrate an out-of-fold table, each fold by a calibrator that was fitted on the other folds. Returns [n].

    Raises DataError where the other folds lack positives or negatives.
    """
    fold, (truth, probability) = table["fold"].to_numpy(), truth_and_probability(table, label)
    calibrated = np.empty(len(table), dtype=np.float32)
    for number in np.unique(fold):
        inside = fold == number
        calibrated[inside] = KINDS[kind](truth[~inside], probability[~inside]).apply(probability[inside])
    return calibrated


def with_calibrated(table: pd.DataFrame, labels: tuple[str, ...]) -> pd.DataFrame:
    """Add a column of cross-fitted probabilities per label; NaN where too few images of other folds calibrate them."""
    return table.assign(**{label + CALIBRATED: _cross_fitted_or_unknown(table, label) for label in labels})


def _cross_fitted_or_unknown(table: pd.DataFrame, label: str) -> npt.NDArray[np.float32]:
    try:
        return cross_fitted(table, label)
    except DataError:
        return np.full(len(table), np.nan, dtype=np.float32)


def decision_curve(truth: Floats, probability: Floats) -> DecisionCurve | None:
    """The decision curve of calibrated probabilities [n] at thresholds of 0.01 to 0.60; None without known truths."""
    try:
        return operating_points.decision_curve(truth, probability, _THRESHOLDS)
    except DataError:
        return None


def truth_and_probability(table: pd.DataFrame, label: str) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """The columns of one label, [n] each."""
    return table[label + TRUE].to_numpy(), table[label].to_numpy()

"""What a run decides once, on its out-of-fold predictions: how to calibrate probabilities and where to call lesions.

Kept in the run as ``decision_rules.json``; an evaluation on unseen images applies it and chooses nothing of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import log_loss

from melanoma_dist.artifacts.decision_rules import USED, YOUDEN, DecisionRules
from melanoma_dist.data.labels import TRUE
from melanoma_dist.errors import DataError
from melanoma_dist.metrics import operating_points
from melanoma_dist.metrics.bootstrap import RESAMPLES, draws, ratios, strata_of
from melanoma_dist.metrics.calibration import (
    Calibrator,
    Isotonic,
    Logistic,
    Temperature,
    expected_calibration_error,
    reliability,
)
from melanoma_dist.metrics.operating_points import Rule, cost_ratio, fixed_sensitivity, youden

Floats = npt.NDArray[np.floating[Any]]
KINDS: dict[str, Callable[[Floats, Floats], Calibrator]] = {
    "temperature": Temperature.fit,
    "isotonic": Isotonic.fit,
    "logistic": Logistic.fit,
}
RULES: dict[str, Rule] = {
    **{f"sensitivity {level:.2f}": fixed_sensitivity(level) for level in (0.80, 0.90, 0.95)},
    YOUDEN: youden(),
    "a miss costs 20 false alarms": cost_ratio(20),
}
_THRESHOLDS = np.round(np.arange(0.01, 0.61, 0.01), 2)  # of decision curves: what a clinician might act on


def fit_decision_rules(table: pd.DataFrame, labels: tuple[str, ...]) -> DecisionRules:
    """Decide on a table of out-of-fold predictions, raw probabilities."""
    calibrators: dict[str, Calibrator | None] = {}
    points: dict[str, list[dict[str, Any]]] = {}
    why_not: dict[str, str] = {}
    for label in labels:
        truth, probability = table[label + TRUE].to_numpy(), table[label].to_numpy()
        try:
            calibrator = KINDS[USED](truth, probability)
            calibrated = calibrator.apply(probability).astype(np.float32)
            points[label] = _choose(truth, calibrated)
            calibrators[label] = calibrator
        except DataError as error:
            calibrators[label], points[label], why_not[label] = None, [], str(error)
    return DecisionRules(calibrators, points, why_not)


def calibration(table: pd.DataFrame, labels: tuple[str, ...]) -> dict[str, Any]:
    """How well out-of-fold probabilities mean what they say, before and after each kind of calibration.

    What is after is cross-fitted: each fold is calibrated by what was fitted on the others.
    """
    told: dict[str, Any] = {}
    for label in labels:
        truth, probability = table[label + TRUE].to_numpy(), table[label].to_numpy()
        try:
            after = {kind: quality(truth, cross_fitted(table, label, kind)) for kind in KINDS}
            told[label] = {"before": quality(truth, probability), "after": after}
        except DataError as error:
            told[label] = {"not_fitted": str(error)}
    return {"used": USED, "labels": told}


def cross_fitted(table: pd.DataFrame, label: str, kind: str = USED) -> npt.NDArray[np.float32]:
    """Calibrated probabilities [n] of an out-of-fold table, each fold's by what was fitted on the other folds.

    Raises DataError where the other folds lack positives or negatives.
    """
    fold, truth, probability = (table[name].to_numpy() for name in ("fold", label + TRUE, label))
    made = np.empty(len(table), dtype=np.float32)
    for number in np.unique(fold):
        mine = fold == number
        made[mine] = KINDS[kind](truth[~mine], probability[~mine]).apply(probability[mine])
    return made


def quality(truth: Floats, probability: Floats) -> dict[str, Any]:
    """Brier score, log loss (nats), calibration error and reliability diagram, for truth and probability [n].

    The diagram has ten points of about as many images each: bins of equal width are all but empty where few images are
    called probable, and their points jump.
    """
    known = ~np.isnan(truth)
    actual, score = truth[known].astype(int), probability[known].astype(np.float64)
    diagram = reliability(truth, probability, bins=10, equal_counts=True)
    return {
        "brier": float(np.mean((score - actual) ** 2)) if len(actual) else None,
        "log_loss": float(log_loss(actual, score, labels=[0, 1])) if len(actual) else None,
        "calibration_error": expected_calibration_error(truth, probability),
        "reliability": {
            "predicted": list(diagram.predicted), "observed": list(diagram.observed), "images": list(diagram.images),
        },
    }  # fmt: skip


def decision(truth: Floats, probability: Floats) -> dict[str, Any] | None:
    """The decision curve of calibrated probabilities [n] at thresholds of 0.01 to 0.60; None without known truths."""
    try:
        curve = operating_points.decision_curve(truth, probability, _THRESHOLDS)
    except DataError:
        return None
    return {"thresholds": list(curve.thresholds), "model": list(curve.model), "call_all": list(curve.call_all)}


def judge(
    points: list[dict[str, Any]],
    truth: Floats,
    probability: Floats,
    group: npt.NDArray[Any],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Frozen points with what they do to other images: truth (1, 0, NaN), calibrated probability and group [n].

    Each gets ``judged``: counts of images, and sensitivity, specificity and precision with intervals over groups.
    """
    number = pd.factorize(np.asarray(group), sort=True)[0]
    weights = list(draws(strata_of(truth[:, None], number), resamples, seed))
    told = []
    for point in points:
        found = operating_points.apply(truth, probability, point["threshold"])
        called = probability >= np.asarray(point["threshold"], dtype=probability.dtype)
        parts = {
            "sensitivity": ((truth == 1) & called, truth == 1),
            "specificity": ((truth == 0) & ~called, truth == 0),
            "precision": ((truth == 1) & called, ~np.isnan(truth) & called),
        }
        judged = {
            "true_positives": found.true_positives,
            "false_positives": found.false_positives,
            "true_negatives": found.true_negatives,
            "false_negatives": found.false_negatives,
            **ratios(parts, number, weights),
        }
        told.append({**point, "judged": judged})
    return told


def _choose(truth: Floats, calibrated: Floats) -> list[dict[str, Any]]:
    chosen = {name: operating_points.choose(truth, calibrated, rule) for name, rule in RULES.items()}
    return [{"name": name, **point.to_dict()} for name, point in chosen.items()]

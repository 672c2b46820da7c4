"""Calibrate probabilities, and measure how well they are calibrated.

Fit calibrators on out-of-fold predictions only: every model looks well calibrated on the images that it trained on.
Measure them cross-fitted, each fold by a calibrator that was fitted on the other folds: on the predictions that fitted
it, a calibrator looks better than it is. Each label has its own calibrator, plain numbers that a run stores as JSON.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, logit
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import log_loss

from melanoma_dist.errors import DataError

Floats = npt.NDArray[np.floating[Any]]
NEAREST = 1e-7
"""The nearest probability to 0 and 1, whose logits are infinite: float32 rounds to them."""
_TEMPERATURES = (0.01, 100.0)
_SHIFTS = (-20.0, 20.0)  # of logits
_EXACT = {"ftol": 1e-14, "gtol": 1e-10, "maxiter": 1000}


@dataclass(frozen=True)
class Temperature:
    """Divide logits by a number above 0; ranks stay (Guo et al. 2017, "On calibration of modern neural networks")."""

    temperature: float
    kind: Literal["temperature"] = "temperature"

    @classmethod
    def fit(cls, truth: Floats, probability: Floats) -> Temperature:
        """Return the temperature of 0.01 to 100 with the least log loss, for truth and out-of-fold probability [n].

        Raises DataError unless positives and negatives are known.
        """
        actual, score = _known(truth, probability)
        logits = _logits(score)

        def loss(log_temperature: float) -> float:
            scaled = logits * np.exp(-log_temperature)
            return float(np.mean(np.logaddexp(0, scaled) - actual * scaled))

        solution = minimize_scalar(loss, bounds=np.log(_TEMPERATURES), method="bounded", options={"xatol": 1e-8})
        return cls(float(np.exp(solution.x)))

    def apply(self, probability: Floats) -> Floats:
        """Return calibrated probabilities, in any shape."""
        return np.asarray(expit(_logits(probability) / self.temperature))


@dataclass(frozen=True)
class Logistic:
    """Scale and shift logits; ranks stay (Platt 1999, "Probabilistic outputs for support vector machines").

    Unlike a temperature it can undo class weights, which move all logits of a label by about the same amount.
    """

    scale: float
    shift: float
    kind: Literal["logistic"] = "logistic"

    @classmethod
    def fit(cls, truth: Floats, probability: Floats) -> Logistic:
        """Fit scale (0.01 to 100) and shift with the least log loss, for truth and out-of-fold probability [n].

        Uses Platt's targets, (P + 1) / (P + 2) for the P positives and 1 / (N + 2) for the N negatives. They keep the
        solution finite for predictions that separate the classes. Raises DataError unless both are known.
        """
        actual, score = _known(truth, probability)
        logits = _logits(score)
        positives, negatives = actual.sum(), (1 - actual).sum()
        target = np.where(actual == 1, (positives + 1) / (positives + 2), 1 / (negatives + 2))

        def loss(values: Floats) -> tuple[float, Floats]:
            scaled = values[0] * logits + values[1]
            gradient = expit(scaled) - target
            value = np.mean(np.logaddexp(0, scaled) - target * scaled)
            return float(value), np.array([np.mean(gradient * logits), np.mean(gradient)])

        bounds = [(1 / _TEMPERATURES[1], 1 / _TEMPERATURES[0]), _SHIFTS]
        solution = minimize(loss, np.array([1.0, 0.0]), jac=True, bounds=bounds, method="L-BFGS-B", options=_EXACT)
        return cls(float(solution.x[0]), float(solution.x[1]))

    def apply(self, probability: Floats) -> Floats:
        """Return calibrated probabilities, in any shape."""
        return np.asarray(expit(self.scale * _logits(probability) + self.shift))


@dataclass(frozen=True)
class Isotonic:
    """The increasing piecewise linear function nearest to the truth (Zadrozny and Elkan 2002).

    It creates ties, which change an AUC. It is constant outside the probabilities that fitted it.
    """

    raw: tuple[float, ...]
    """Raw probabilities where the pieces meet, rising."""
    calibrated: tuple[float, ...]
    """The calibrated probability of each."""
    kind: Literal["isotonic"] = "isotonic"

    @classmethod
    def fit(cls, truth: Floats, probability: Floats) -> Isotonic:
        """Fit by scikit-learn, for truth and out-of-fold probability [n].

        Raises DataError unless positives and negatives are known.
        """
        actual, score = _known(truth, probability)
        fitted = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(score, actual)
        return cls(tuple(fitted.X_thresholds_.tolist()), tuple(fitted.y_thresholds_.tolist()))

    def apply(self, probability: Floats) -> Floats:
        """Return calibrated probabilities, in any shape."""
        return np.asarray(np.interp(probability, self.raw, self.calibrated))


Calibrator = Temperature | Logistic | Isotonic
"""Turn a raw probability into a calibrated one."""


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: a point for each bin that has images."""

    predicted: tuple[float, ...]
    """Mean probability of the bin's images."""
    observed: tuple[float, ...]
    """Share of positives among them."""
    images: tuple[int, ...]


def reliability(truth: Floats, probability: Floats, bins: int = 15, equal_counts: bool = False) -> Reliability:
    """Return the diagram of one label, for truth and probability [n]; unknown truths do not count.

    Bins have equal widths, [0, 1/bins), [1/bins, 2/bins), ... with 1 in the last; or, with ``equal_counts``, borders at
    the quantiles of the probabilities (fewer bins where quantiles are equal).
    """
    known = ~np.isnan(truth)
    actual, score = truth[known].astype(np.float64), probability[known].astype(np.float64)
    if not len(actual):
        return Reliability((), (), ())
    if equal_counts:
        borders = np.unique(np.quantile(score, np.linspace(0, 1, bins + 1)[1:-1]))
        index = np.searchsorted(borders, score, side="right")
    else:
        index = bin_of(score, bins)
    counts = np.bincount(index)
    full = counts > 0
    predicted, observed = (np.bincount(index, values)[full] / counts[full] for values in (score, actual))
    return Reliability(tuple(predicted.tolist()), tuple(observed.tolist()), tuple(counts[full].tolist()))


def bin_of(probability: Floats, bins: int) -> npt.NDArray[np.int_]:
    """Return the number of each probability's bin, for bins of equal width."""
    return np.asarray(np.minimum((probability.astype(np.float64) * bins).astype(int), bins - 1))


def expected_calibration_error(truth: Floats, probability: Floats, bins: int = 15) -> float | None:
    """Average | mean probability - share of positives | of each image's bin, 0 to 1; None without images.

    Bins have equal widths and hold the label's own probability (Naeini, Cooper and Hauskrecht 2015), not that of the
    most probable class (Guo et al. 2017). The error grows when bins hold few images, even if calibration is perfect.
    """
    curve = reliability(truth, probability, bins)
    if not curve.images:
        return None
    gaps = np.abs(np.subtract(curve.predicted, curve.observed))
    return float(np.average(gaps, weights=curve.images))


@dataclass(frozen=True)
class CalibrationQuality:
    """How well probabilities are calibrated. Values are None if no truth is known."""

    brier: float | None
    log_loss: float | None
    """In nats."""
    calibration_error: float | None
    reliability: Reliability


def quality(truth: Floats, probability: Floats) -> CalibrationQuality:
    """Measure the calibration of probabilities [n] against the truth [n].

    The diagram has ten points of about as many images each. Bins of equal width would be almost empty at high
    probabilities, where images are few, and their points would jump.
    """
    known = ~np.isnan(truth)
    actual, score = truth[known].astype(int), probability[known].astype(np.float64)
    return CalibrationQuality(
        float(np.mean((score - actual) ** 2)) if len(actual) else None,
        float(log_loss(actual, score, labels=[0, 1])) if len(actual) else None,
        expected_calibration_error(truth, probability),
        reliability(truth, probability, bins=10, equal_counts=True),
    )


def _known(truth: Floats, probability: Floats) -> tuple[Floats, Floats]:
    known = ~np.isnan(truth)
    actual, score = truth[known].astype(np.float64), probability[known].astype(np.float64)
    if not actual.any() or actual.all():
        raise DataError("A calibration needs images known to have the label and images known not to.")
    return actual, score


def _logits(probability: Floats) -> Floats:
    return np.asarray(logit(np.clip(probability.astype(np.float64), NEAREST, 1 - NEAREST)))

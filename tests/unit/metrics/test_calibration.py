from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from scipy.optimize import minimize
from scipy.special import expit, logit
from sklearn.calibration import calibration_curve
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss, roc_auc_score

from melanoma_dist.errors import DataError
from melanoma_dist.metrics.calibration import (
    Calibrator,
    Isotonic,
    Logistic,
    Temperature,
    expected_calibration_error,
    reliability,
)

RNG = np.random.default_rng(0)
HONEST = RNG.beta(1, 3, 4000)
TRUTH = (RNG.random(4000) < HONEST).astype(np.float32)
SURE = expit(2.5 * logit(HONEST)).astype(np.float32)  # overconfident by a temperature of 2.5


def test_the_temperature_is_found_again_and_is_the_best() -> None:
    fitted = Temperature.fit(TRUTH, SURE)
    assert fitted.temperature == pytest.approx(2.5, rel=0.1)
    logits = logit(SURE.astype(float).clip(1e-7, 1 - 1e-7))
    best = minimize(lambda t: log_loss(TRUTH, expit(logits / t[0])), [1.0], method="Nelder-Mead", tol=1e-9)
    assert fitted.temperature == pytest.approx(best.x[0], rel=1e-4)
    before, after = (expected_calibration_error(TRUTH, score) for score in (SURE, fitted.apply(SURE)))
    assert before is not None
    assert after is not None
    assert after < 0.35 * before
    assert roc_auc_score(TRUTH, fitted.apply(SURE)) == pytest.approx(roc_auc_score(TRUTH, SURE), abs=1e-4)


def test_scale_and_shift_are_found_again_and_are_scikit_learns() -> None:
    moved = expit(1.6 * logit(HONEST) + 1.2)
    fitted = Logistic.fit(TRUTH, moved)
    assert (1 / fitted.scale, -fitted.shift / fitted.scale) == (
        pytest.approx(1.6, rel=0.1),
        pytest.approx(1.2, abs=0.15),
    )
    oracle = LogisticRegression(C=1e9, tol=1e-10, max_iter=1000).fit(logit(moved)[:, None], TRUTH)
    assert fitted.scale == pytest.approx(oracle.coef_[0, 0], rel=5e-3)  # Platt's targets differ from 0 and 1 a little
    assert fitted.shift == pytest.approx(oracle.intercept_[0], rel=5e-3)
    assert fitted.apply(moved).mean() == pytest.approx(TRUTH.mean(), abs=1e-3)


@pytest.mark.parametrize("reverse", [False, True])
def test_classes_that_are_separated_have_a_finite_logistic_that_keeps_ranks(reverse: bool) -> None:
    score = np.linspace(0.01, 0.99, 40)
    truth = ((score > 0.5) != reverse).astype(float)
    fitted = Logistic.fit(truth, score)
    assert 0 < fitted.scale <= 100
    assert (np.diff(fitted.apply(score)) >= 0).all()
    constant = Logistic.fit(truth, np.full(40, 0.3))
    assert constant.apply(np.array([0.3])) == pytest.approx(0.5, abs=1e-3)


def test_isotonic_is_scikit_learns() -> None:
    fitted = Isotonic.fit(TRUTH, SURE)
    oracle = IsotonicRegression(out_of_bounds="clip").fit(SURE.astype(float), TRUTH)
    grid = np.linspace(0, 1, 501)
    np.testing.assert_allclose(fitted.apply(grid), oracle.predict(grid), atol=1e-6)
    assert expected_calibration_error(TRUTH, fitted.apply(SURE)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kind", [Temperature, Isotonic, Logistic])
def test_calibrators_survive_json_and_ignore_unknown_truths(kind: Any) -> None:
    truth = TRUTH.copy()
    truth[::3] = np.nan
    known = ~np.isnan(truth)
    fitted = kind.fit(truth, SURE)
    assert fitted == kind.fit(truth[known], SURE[known])
    again = TypeAdapter(Calibrator).validate_json(json.dumps(asdict(fitted)), strict=True)
    assert again == fitted
    np.testing.assert_array_equal(again.apply(SURE), fitted.apply(SURE))
    edges = again.apply(np.array([[0.0, 1.0]], dtype=np.float32))
    assert edges.shape == (1, 2)
    assert (np.isfinite(edges) & (edges >= 0) & (edges <= 1)).all()


@pytest.mark.parametrize("kind", [Temperature, Isotonic, Logistic])
def test_one_class_alone_is_refused(kind: Any) -> None:
    for truth in ([1.0, 1, np.nan], [0.0, 0, 0], [np.nan] * 3):
        with pytest.raises(DataError, match="known not to"):
            kind.fit(np.array(truth), np.array([0.1, 0.5, 0.9]))


@pytest.mark.parametrize("stored", [{}, {"kind": "platt"}, {"kind": "isotonic", "raw": 3}, {"kind": "temperature"}])
def test_other_stored_things_are_refused(stored: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Calibrator).validate_json(json.dumps(stored), strict=True)


@pytest.mark.parametrize(("strategy", "equal_counts"), [("uniform", False), ("quantile", True)])
def test_the_diagram_is_scikit_learns(strategy: str, equal_counts: bool) -> None:
    fitted = reliability(TRUTH, HONEST, 10, equal_counts)
    observed, predicted = calibration_curve(TRUTH, HONEST, n_bins=10, strategy=strategy)
    np.testing.assert_allclose(fitted.observed, observed, atol=1e-9)
    np.testing.assert_allclose(fitted.predicted, predicted, atol=1e-9)
    assert sum(fitted.images) == 4000


def test_bins_at_the_edges_with_ties_and_with_nothing() -> None:
    fitted = reliability(np.array([0.0, 1, 1, np.nan]), np.array([0.0, 1.0, 0.5, 0.2]), bins=2)
    assert (fitted.predicted, fitted.observed, fitted.images) == ((0.0, 0.75), (0.0, 1.0), (1, 2))
    constant = reliability(np.array([0.0, 1]), np.array([0.3, 0.3]), equal_counts=True)
    assert (constant.predicted, constant.observed, constant.images) == ((0.3,), (0.5,), (2,))
    assert reliability(np.array([np.nan]), np.array([0.2])).images == ()
    assert expected_calibration_error(np.array([np.nan]), np.array([0.2])) is None

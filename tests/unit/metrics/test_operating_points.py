from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from sklearn.metrics import precision_score, recall_score

from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.metrics.operating_points import (
    OperatingPoint,
    Rule,
    apply,
    choose,
    cost_ratio,
    decision_curve,
    fixed_sensitivity,
    youden,
)

RULES = (fixed_sensitivity(0.9), fixed_sensitivity(1.0), youden(), cost_ratio(10), cost_ratio(0.2))


def merit(rule: Rule, actual: Any, called: Any) -> tuple[float, ...]:
    """The greater, the better, by the words of the rule."""
    sensitivity, specificity = called[actual == 1].mean(), (~called[actual == 0]).mean()
    if rule.kind == "sensitivity":
        assert rule.value is not None
        return (float(sensitivity >= rule.value - 1e-9), round(specificity, 9))
    if rule.kind == "youden":
        return (round(sensitivity + specificity, 9),)
    assert rule.value is not None
    return (round(-(rule.value * (~called & (actual == 1)).sum() + (called & (actual == 0)).sum()), 6),)


@given(st.integers(0, 10_000), st.sampled_from(RULES))
@settings(max_examples=60, deadline=None)
def test_no_other_threshold_is_better_and_no_higher_one_as_good(seed: int, rule: Rule) -> None:
    rng = np.random.default_rng(seed)
    truth = np.concatenate([[0, 1], rng.choice([0, 1, np.nan], 28)]).astype(np.float32)
    score = rng.integers(0, 8, 30).astype(np.float32) / 7
    point = choose(truth, score, rule)
    known = ~np.isnan(truth)
    actual = truth[known]
    all_merits = {float(t): merit(rule, actual, score[known] >= t) for t in np.unique(score[known])}
    best = max(all_merits.values())
    assert all_merits[point.threshold] == best
    same_calls = [t for t, value in all_merits.items() if value == best and t > point.threshold]
    assert not same_calls
    counts = apply(truth, score, point.threshold)
    assert counts.sensitivity == pytest.approx(point.sensitivity)
    assert counts.specificity == pytest.approx(point.specificity)


def test_a_frozen_point_survives_json_and_judges_others() -> None:
    rng = np.random.default_rng(0)
    truth, other = rng.integers(2, size=200).astype(np.float32), rng.integers(2, size=100).astype(np.float32)
    score, unseen = rng.random(200).astype(np.float32), rng.random(100).astype(np.float32)
    point = choose(truth, score, fixed_sensitivity(0.9))
    again = TypeAdapter(OperatingPoint).validate_json(json.dumps(asdict(point)), strict=True)
    assert again == point
    counts = apply(other, unseen, again.threshold)
    called = unseen >= np.float32(again.threshold)
    assert counts.sensitivity == pytest.approx(recall_score(other, called))
    assert counts.specificity == pytest.approx(recall_score(other, called, pos_label=0))
    assert counts.precision == pytest.approx(precision_score(other, called))


def test_what_is_not_defined_is_none() -> None:
    counts = apply(np.array([0.0, np.nan]), np.array([0.1, 0.9]), 0.5)
    assert (counts.sensitivity, counts.specificity, counts.precision) == (None, 1.0, None)
    nothing = apply(np.array([np.nan]), np.array([0.9]), 0.5)
    assert (nothing.sensitivity, nothing.specificity, nothing.precision) == (None, None, None)


@pytest.mark.parametrize("truth", [[1.0, 1], [0.0, 0], [np.nan, 1]])
def test_one_class_alone_is_refused(truth: list[float]) -> None:
    with pytest.raises(DataError, match="known not to"):
        choose(np.array(truth), np.array([0.1, 0.2]), youden())


@pytest.mark.parametrize(
    ("kind", "value"), [("sensitivity", 0.0), ("sensitivity", 1.1), ("sensitivity", None), ("cost", 0), ("youden", 1)]
)
def test_rules_that_make_no_sense_are_refused(kind: Any, value: float | None) -> None:
    with pytest.raises(ConfigError, match="must"):
        Rule(kind, value)


def test_other_stored_things_are_refused() -> None:
    for stored in ({}, {"rule": {"kind": "cost", "value": -1}}, {"rule": {"kind": "youden"}, "limit": 3}):
        with pytest.raises((ValidationError, ConfigError)):
            TypeAdapter(OperatingPoint).validate_json(json.dumps(stored), strict=True)


def test_net_benefit_by_hand() -> None:
    """Vickers and Elkin (2006): true positives / n - false positives / n * t / (1 - t)."""
    truth = np.array([1, 1, 0, 0, 0, np.nan])
    score = np.array([0.9, 0.3, 0.6, 0.1, 0.0, 0.9])
    curve = decision_curve(truth, score, np.array([0.0, 0.2, 0.5, 0.95]))
    assert curve.model == pytest.approx((2 / 5, 2 / 5 - 1 / 5 * 0.25, 1 / 5 - 1 / 5, 0))
    assert curve.call_all == pytest.approx((2 / 5, 2 / 5 - 3 / 5 * 0.25, 2 / 5 - 3 / 5, 2 / 5 - 3 / 5 * 19))
    with pytest.raises(ConfigError, match="below 1"):
        decision_curve(truth, score, np.array([1.0]))
    with pytest.raises(DataError, match="known"):
        decision_curve(np.array([np.nan]), np.array([0.1]), np.array([0.5]))

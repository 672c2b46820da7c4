from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, confusion_matrix, log_loss, roc_auc_score

from melanoma_dist.artifacts.decision_rules import USED, read_decision_rules, write_decision_rules
from melanoma_dist.artifacts.predictions import arrays
from melanoma_dist.artifacts.summary import LabelCalibration
from melanoma_dist.errors import DataError
from melanoma_dist.evaluate.decision_rules import (
    KINDS,
    RULES,
    calibration,
    cross_fitted,
    decision_curve,
    fit_decision_rules,
)
from melanoma_dist.metrics.calibration import Logistic
from melanoma_dist.metrics.intervals import Interval, Undefined
from melanoma_dist.metrics.operating_points import evaluate_points

from ..hostile import fuzz_reader

LABELS = ("MEL", "BKL")
FOLDS = 4


def predictions(images: int = 1200, seed: int = 0) -> pd.DataFrame:
    """Out-of-fold predictions of models that class weights have made too sure of MEL; BKL is never there."""
    rng = np.random.default_rng(seed)
    honest = rng.beta(1, 6, images)
    truth = (rng.random(images) < honest).astype(np.float32)
    shifted = 1 / (1 + np.exp(-(np.log(honest / (1 - honest)) + 2)))
    return pd.DataFrame(
        {
            "image_id": [f"ISIC_{number:07d}" for number in range(images)],
            "group": [f"lesion-{number // 2}" for number in range(images)],
            "fold": (np.arange(images) // 2 % FOLDS).astype(np.int32),
            "MEL": shifted.astype(np.float32),
            "BKL": rng.random(images).astype(np.float32),
            "MEL_true": truth,
            "BKL_true": np.zeros(images, dtype=np.float32),
        }
    )


def test_stored_rules_calibrate_alike(tmp_path: Path) -> None:
    table = predictions()
    rules = fit_decision_rules(table, LABELS)
    write_decision_rules(tmp_path, rules)
    again = read_decision_rules(tmp_path)
    assert again == rules
    pd.testing.assert_frame_equal(again.calibrate(table, LABELS), rules.calibrate(table, LABELS))


def test_calibration_undoes_class_weights_and_keeps_ranks() -> None:
    table = predictions()
    calibrated = fit_decision_rules(table, LABELS).calibrate(table, LABELS)
    assert calibrated["MEL"].mean() == pytest.approx(table["MEL_true"].mean(), abs=0.005)
    assert roc_auc_score(table["MEL_true"], calibrated["MEL"]) == pytest.approx(
        roc_auc_score(table["MEL_true"], table["MEL"])
    )
    assert calibrated["BKL"].equals(table["BKL"])


def test_a_label_that_no_image_has_gets_no_rules_and_a_reason() -> None:
    rules = fit_decision_rules(predictions(), LABELS)
    undefined = rules.labels["BKL"]
    assert isinstance(undefined, Undefined)
    assert "images known to have the label" in undefined.reason
    assert rules.points("BKL") == ()
    assert rules.thresholds(LABELS, 0.5)[1] == 0.5
    assert calibration(predictions(), LABELS).labels["BKL"] == undefined


def test_thresholds_are_those_of_youden_on_calibrated_probabilities() -> None:
    table = predictions()
    rules = fit_decision_rules(table, LABELS)
    score, truth = rules.calibrate(table, LABELS)["MEL"].to_numpy(), table["MEL_true"].to_numpy()
    gains = {t: (score[truth == 1] >= t).mean() + (score[truth == 0] < t).mean() for t in np.unique(score)}
    assert gains[np.float32(rules.thresholds(("MEL",), 0.5)[0])] == pytest.approx(max(gains.values()))
    points = {point.name: point for point in rules.points("MEL")}
    assert list(points) == [
        "sensitivity 0.80", "sensitivity 0.90", "sensitivity 0.95", "Youden", "a miss costs 20 false alarms",
    ]  # fmt: skip
    assert [point.rule for point in points.values()] == list(RULES)
    assert points["sensitivity 0.90"].sensitivity >= 0.9


@pytest.mark.parametrize(
    "labels", [3, {"MEL": {"calibrator": {"kind": "magic"}, "points": []}}, {"MEL": {"points": []}}, {"MEL": {}}]
)
def test_a_file_without_rules_is_refused(labels: object, tmp_path: Path) -> None:
    write_decision_rules(tmp_path, fit_decision_rules(predictions(300), LABELS))
    path = tmp_path / "decision_rules.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "labels": labels}))
    with pytest.raises(DataError, match=r"decision_rules\.json: .*labels.* delete summary\.json"):
        read_decision_rules(tmp_path)


def test_cross_fitting_never_calibrates_a_fold_by_itself() -> None:
    table = predictions()
    calibrated = cross_fitted(table, "MEL")
    for fold in range(FOLDS):
        others, own = table[table["fold"] != fold], (table["fold"] == fold).to_numpy()
        fitted = Logistic.fit(others["MEL_true"].to_numpy(), others["MEL"].to_numpy())
        np.testing.assert_allclose(calibrated[own], fitted.apply(table["MEL"].to_numpy()[own]), rtol=1e-6)
    spoilt = table.assign(MEL_true=table["MEL_true"].where(table["fold"] != 0, 1 - table["MEL_true"]))
    own = (table["fold"] == 0).to_numpy()
    np.testing.assert_array_equal(cross_fitted(spoilt, "MEL")[own], calibrated[own])


def test_the_quality_is_scikit_learns_and_better_after() -> None:
    table = predictions()
    result = calibration(table, ("MEL",)).labels["MEL"]
    assert isinstance(result, LabelCalibration)
    assert set(result.after) == set(KINDS)
    for quality, score in ((result.before, table["MEL"]), (result.after[USED], cross_fitted(table, "MEL"))):
        truth = table["MEL_true"].astype(int)
        assert quality.brier == pytest.approx(brier_score_loss(truth, np.asarray(score, dtype=float)))
        assert quality.log_loss == pytest.approx(log_loss(truth, np.asarray(score, dtype=float)))
        assert sum(quality.reliability.images) == len(table)
    for metric in ("brier", "log_loss", "calibration_error"):
        logistic = getattr(result.after["logistic"], metric)
        assert logistic < getattr(result.before, metric)
        assert logistic < getattr(result.after["temperature"], metric)


def test_points_are_evaluated_on_other_images_with_intervals_over_groups() -> None:
    points = fit_decision_rules(predictions(), LABELS).points("MEL")
    other = predictions(seed=1)
    truth, score, group = (other[name].to_numpy() for name in ("MEL_true", "MEL", "group"))
    for point in evaluate_points(points, *arrays(other, LABELS), group, 0, resamples=300):
        called = score >= np.float32(point.threshold)
        negative, false, missed, true = confusion_matrix(truth, called).ravel()
        counts = point.counts
        assert (counts.true_negatives, counts.false_positives) == (negative, false)
        assert (counts.false_negatives, counts.true_positives) == (missed, true)
        assert isinstance(counts.sensitivity, Interval)
        assert isinstance(counts.specificity, Interval)
        assert isinstance(counts.precision, Interval)
        assert counts.sensitivity.estimate == pytest.approx(true / (true + missed))
        assert counts.specificity.estimate == pytest.approx(negative / (negative + false))
        assert counts.precision.estimate == pytest.approx(true / (true + false))
        assert counts.specificity.low < counts.specificity.estimate < counts.specificity.high


def test_images_without_the_label_define_no_sensitivity() -> None:
    points = fit_decision_rules(predictions(), LABELS).points("MEL")
    other = predictions(images=40).assign(MEL_true=np.float32(0))
    counts = evaluate_points(points, *arrays(other, LABELS), other["group"].to_numpy(), 0, resamples=20)[0].counts
    assert counts.sensitivity == Undefined("no image of the kind that it counts")
    assert counts.true_positives == counts.false_negatives == 0


def test_a_decision_curve_needs_known_truths() -> None:
    table = predictions()
    result = decision_curve(table["MEL_true"].to_numpy(), table["MEL"].to_numpy())
    assert result is not None
    assert result.thresholds[0] == 0.01
    assert len(result.model) == len(result.call_all) == len(result.thresholds) == 60
    assert decision_curve(np.full(3, np.nan), np.full(3, 0.5)) is None


def test_a_corrupt_file_is_read_or_refused(tmp_path: Path) -> None:
    table = predictions(300)
    path = tmp_path / "decision_rules.json"

    def read(data: bytes) -> None:
        path.write_bytes(data)
        rules = read_decision_rules(tmp_path)
        rules.calibrate(table, LABELS)
        rules.thresholds(LABELS, 0.5)

    write_decision_rules(tmp_path, fit_decision_rules(table, LABELS))
    fuzz_reader(read, path.read_bytes(), DataError)

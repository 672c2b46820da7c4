from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import brier_score_loss, confusion_matrix, log_loss, roc_auc_score

from melanoma_dist.artifacts.decision_rules import USED, YOUDEN, DecisionRules
from melanoma_dist.errors import DataError
from melanoma_dist.evaluate.decision_rules import (
    KINDS,
    RULES,
    calibration,
    cross_fitted,
    decision,
    fit_decision_rules,
    judge,
)
from melanoma_dist.metrics.calibration import Logistic
from melanoma_dist.storage.untrusted import parse_json

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


def test_what_is_frozen_survives_json_and_calibrates_alike() -> None:
    table = predictions()
    frozen = fit_decision_rules(table, LABELS)
    again = DecisionRules.of(json.loads(json.dumps(frozen.to_dict(), allow_nan=False)))
    assert again == frozen
    pd.testing.assert_frame_equal(again.calibrate(table, LABELS), frozen.calibrate(table, LABELS))


def test_calibration_undoes_class_weights_and_keeps_ranks() -> None:
    table = predictions()
    made = fit_decision_rules(table, LABELS).calibrate(table, LABELS)
    assert made["MEL"].mean() == pytest.approx(table["MEL_true"].mean(), abs=0.005)
    assert roc_auc_score(table["MEL_true"], made["MEL"]) == pytest.approx(
        roc_auc_score(table["MEL_true"], table["MEL"])
    )
    assert made["BKL"].equals(table["BKL"])


def test_a_label_that_no_image_has_is_not_frozen_and_says_why() -> None:
    frozen = fit_decision_rules(predictions(), LABELS)
    assert frozen.calibrators["BKL"] is None
    assert frozen.points["BKL"] == []
    assert "images known to have the label" in frozen.told_points()["BKL"]["not_chosen"]
    assert frozen.thresholds(LABELS, 0.5)[1] == 0.5
    assert calibration(predictions(), LABELS)["labels"]["BKL"] == {"not_fitted": frozen.why_not["BKL"]}


def test_thresholds_are_those_of_youden_on_calibrated_probabilities() -> None:
    table = predictions()
    frozen = fit_decision_rules(table, LABELS)
    score, truth = frozen.calibrate(table, LABELS)["MEL"].to_numpy(), table["MEL_true"].to_numpy()
    gains = {t: (score[truth == 1] >= t).mean() + (score[truth == 0] < t).mean() for t in np.unique(score)}
    assert gains[np.float32(frozen.thresholds(("MEL",), 0.5)[0])] == pytest.approx(max(gains.values()))
    names = [point["name"] for point in frozen.points["MEL"]]
    assert names == list(RULES)
    assert YOUDEN in names
    assert next(point for point in frozen.points["MEL"] if point["name"] == "sensitivity 0.90")["sensitivity"] >= 0.9


@pytest.mark.parametrize("stored", [{}, {"calibrators": 3}, {"calibrators": {"MEL": {"kind": "magic"}}, "points": {}}])
def test_anything_else_is_refused(stored: dict[str, object]) -> None:
    with pytest.raises(DataError):
        DecisionRules.of(stored)


def test_cross_fitting_never_calibrates_a_fold_by_itself() -> None:
    table = predictions()
    made = cross_fitted(table, "MEL")
    for fold in range(FOLDS):
        others, mine = table[table["fold"] != fold], (table["fold"] == fold).to_numpy()
        fitted = Logistic.fit(others["MEL_true"].to_numpy(), others["MEL"].to_numpy())
        np.testing.assert_allclose(made[mine], fitted.apply(table["MEL"].to_numpy()[mine]), rtol=1e-6)
    spoilt = table.assign(MEL_true=table["MEL_true"].where(table["fold"] != 0, 1 - table["MEL_true"]))
    mine = (table["fold"] == 0).to_numpy()
    np.testing.assert_array_equal(cross_fitted(spoilt, "MEL")[mine], made[mine])


def test_the_quality_is_scikit_learns_and_better_after() -> None:
    table = predictions()
    told = calibration(table, ("MEL",))["labels"]["MEL"]
    assert set(told["after"]) == set(KINDS)
    for quality, score in ((told["before"], table["MEL"]), (told["after"][USED], cross_fitted(table, "MEL"))):
        truth = table["MEL_true"].astype(int)
        assert quality["brier"] == pytest.approx(brier_score_loss(truth, np.asarray(score, dtype=float)))
        assert quality["log_loss"] == pytest.approx(log_loss(truth, np.asarray(score, dtype=float)))
        assert sum(quality["reliability"]["images"]) == len(table)
    for figure in ("brier", "log_loss", "calibration_error"):
        assert told["after"]["logistic"][figure] < told["before"][figure]
        assert told["after"]["logistic"][figure] < told["after"]["temperature"][figure]


def test_frozen_points_are_judged_elsewhere_with_intervals_over_groups() -> None:
    points = fit_decision_rules(predictions(), LABELS).points["MEL"]
    other = predictions(seed=1)
    truth, score, group = (other[name].to_numpy() for name in ("MEL_true", "MEL", "group"))
    for point in judge(points, truth, score, group, resamples=300):
        called = score >= np.float32(point["threshold"])
        negative, false, missed, true = confusion_matrix(truth, called).ravel()
        judged = point["judged"]
        counts = [judged[key] for key in ("true_negatives", "false_positives", "false_negatives", "true_positives")]
        assert counts == [negative, false, missed, true]
        assert judged["sensitivity"]["estimate"] == pytest.approx(true / (true + missed))
        assert judged["specificity"]["estimate"] == pytest.approx(negative / (negative + false))
        assert judged["precision"]["estimate"] == pytest.approx(true / (true + false))
        assert judged["specificity"]["low"] < judged["specificity"]["estimate"] < judged["specificity"]["high"]


def test_images_without_the_label_define_no_sensitivity() -> None:
    points = fit_decision_rules(predictions(), LABELS).points["MEL"]
    other = predictions(images=40).assign(MEL_true=np.float32(0))
    judged = judge(points, *(other[name].to_numpy() for name in ("MEL_true", "MEL", "group")), resamples=20)[0][
        "judged"
    ]
    assert judged["sensitivity"] == {"not_defined": "no image of the kind that it counts"}
    assert judged["true_positives"] == judged["false_negatives"] == 0


def test_a_decision_needs_known_truths() -> None:
    table = predictions()
    found = decision(table["MEL_true"].to_numpy(), table["MEL"].to_numpy())
    assert found is not None
    assert found["thresholds"][0] == 0.01
    assert len(found["model"]) == len(found["call_all"]) == len(found["thresholds"]) == 60
    assert decision(np.full(3, np.nan), np.full(3, 0.5)) is None


def test_what_is_damaged_is_read_or_refused() -> None:
    table = predictions(300)

    def read(data: bytes) -> None:
        frozen = DecisionRules.of(parse_json(data))
        frozen.calibrate(table, LABELS)
        frozen.thresholds(LABELS, 0.5)

    fuzz_reader(read, json.dumps(fit_decision_rules(table, LABELS).to_dict()).encode(), DataError, ValueError)

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from melanoma_dist.data.labels import LABEL_SETS
from melanoma_dist.metrics.isic_scores import classes_of, isic_scores, multiclass_accuracy

RNG = np.random.default_rng(0)
CLASS = RNG.integers(8, size=300)
TRUTH = np.eye(8)[CLASS]
PROBABILITY = RNG.random((300, 8)) + 0.4 * TRUTH


def test_the_score_of_2019_is_the_mean_recall_over_the_classes() -> None:
    scores = isic_scores(TRUTH, PROBABILITY, LABEL_SETS["isic2019"])
    assert scores["isic2019"] == pytest.approx(balanced_accuracy_score(CLASS, PROBABILITY.argmax(axis=1)))
    assert "isic2018" not in scores


def test_the_score_of_2017_is_the_mean_of_two_aucs() -> None:
    truth = TRUTH[:, [0, 4]].copy()
    truth[:10, 1] = np.nan
    expected = np.mean(
        [roc_auc_score(TRUTH[:, 0], PROBABILITY[:, 0]), roc_auc_score(TRUTH[10:, 4], PROBABILITY[10:, 4])]
    )
    scores = isic_scores(truth, PROBABILITY[:, [0, 4]], LABEL_SETS["isic2017"])
    assert scores == {"isic2017": pytest.approx(expected)}
    truth[:, 1] = 0
    assert isic_scores(truth, PROBABILITY[:, [0, 4]], LABEL_SETS["isic2017"]) == {"isic2017": None}


def test_a_tie_of_the_greatest_is_wrong_and_a_class_without_images_does_not_count() -> None:
    truth = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0]])
    score = np.array([[0.9, 0.1, 0], [0.5, 0.5, 0], [0.1, 0.2, 0]])
    assert multiclass_accuracy(truth, score) == pytest.approx((0.5 + 1) / 2)


def test_images_of_none_of_the_labels_are_a_class_that_is_never_found() -> None:
    truth = np.array([[1, 0], [0, 1], [0, 0]])
    score = np.array([[0.9, 0.1], [0.1, 0.9], [0.1, 0.2]])
    assert multiclass_accuracy(truth, score) == pytest.approx(2 / 3)


def test_one_known_label_is_enough_and_what_is_not_known_does_not_count() -> None:
    truth = np.array([[1, np.nan], [0, np.nan], [1, 1], [np.nan, np.nan]])
    assert classes_of(truth).tolist() == [0, -3, -3, -3]
    assert multiclass_accuracy(truth, np.array([[0.9, 0.1]] * 4)) == 1
    assert multiclass_accuracy(truth[1:], np.array([[0.9, 0.1]] * 3)) is None


def test_labels_of_no_challenge_have_no_score() -> None:
    assert isic_scores(TRUTH[:, :1], PROBABILITY[:, :1], ("MEL",)) == {}

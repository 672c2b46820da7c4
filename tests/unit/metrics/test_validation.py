from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from sklearn import metrics

from melanoma_dist.errors import TrainingError
from melanoma_dist.metrics.validation import VALIDATION_METRICS, validation_metrics

Array = npt.NDArray[np.float32]
RNG = np.random.default_rng(0)
TRUTH = RNG.choice([0, 1, np.nan], (200, 2), p=[0.6, 0.3, 0.1]).astype(np.float32)
PROBABILITY = (RNG.integers(0, 11, (200, 2)) / 10).astype(np.float32)  # many ties


def of_one_label(truth: Array, probability: Array) -> dict[str, float | None]:
    return validation_metrics(truth[:, None], probability[:, None], ("MEL",), 0.5)["labels"]["MEL"]


def test_metrics_equal_scikit_learns_on_known_labels() -> None:
    table = validation_metrics(TRUTH, PROBABILITY, ("MEL", "NV"), 0.5)
    for column, label in enumerate(("MEL", "NV")):
        known = ~np.isnan(TRUTH[:, column])
        truth, score = TRUTH[known, column], PROBABILITY[known, column]
        entry = table["labels"][label]
        assert entry["auc"] == pytest.approx(metrics.roc_auc_score(truth, score))
        assert entry["average_precision"] == pytest.approx(metrics.average_precision_score(truth, score))
        assert entry["precision"] == pytest.approx(metrics.precision_score(truth, score >= 0.5))
        assert entry["sensitivity"] == pytest.approx(metrics.recall_score(truth, score >= 0.5))
        assert entry["specificity"] == pytest.approx(metrics.recall_score(truth, score >= 0.5, pos_label=0))
        assert (entry["positives"], entry["negatives"]) == ((truth == 1).sum(), (truth == 0).sum())
        assert entry["unknown"] == (~known).sum()
    both = [table["labels"][label]["auc"] for label in ("MEL", "NV")]
    assert table["macro"]["auc"] == pytest.approx(np.mean(both))
    assert table["macro"]["auc_labels"] == 2


def test_the_auc_counts_pairs_and_halves_ties() -> None:
    known = ~np.isnan(TRUTH[:, 0])
    truth, score = TRUTH[known, 0], PROBABILITY[known, 0]
    gap = score[truth == 1][:, None] - score[truth == 0][None]
    assert of_one_label(truth, score)["auc"] == pytest.approx((gap > 0).mean() + 0.5 * (gap == 0).mean())


def test_a_metric_that_the_images_do_not_define_is_none() -> None:
    low = np.array([0.1, 0.2], dtype=np.float32)
    undefined = of_one_label(np.array([0, 0], dtype=np.float32), low)
    assert {name for name in VALIDATION_METRICS if undefined[name] is not None} == {"specificity"}
    all_positive = of_one_label(np.array([1, 1], dtype=np.float32), low)
    assert (all_positive["auc"], all_positive["precision"], all_positive["sensitivity"]) == (None, None, 0.0)


def test_a_macro_mean_is_over_the_labels_that_define_the_metric() -> None:
    truth, probability = np.array([[0, 1], [0, 0]], np.float32), np.array([[0.1, 0.1], [0.2, 0.2]], np.float32)
    macro = validation_metrics(truth, probability, ("A", "B"), 0.5)["macro"]
    assert (macro["auc"], macro["auc_labels"]) == (0.0, 1)
    assert (macro["specificity"], macro["specificity_labels"]) == (1.0, 2)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1, 1.1])
def test_a_value_that_is_no_probability_is_refused(value: float) -> None:
    corrupt = PROBABILITY.copy()
    corrupt[3, 1] = value
    with pytest.raises(TrainingError, match="not finite probabilities"):
        validation_metrics(TRUTH, corrupt, ("MEL", "NV"), 0.5)

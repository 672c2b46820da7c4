from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from melanoma_dist.errors import TrainingError
from melanoma_dist.train.metrics import figures, label_figures

RNG = np.random.default_rng(0)
TRUTH = RNG.choice([0, 1, np.nan], (200, 2), p=[0.6, 0.3, 0.1]).astype(np.float32)
PROBABILITY = (RNG.integers(0, 11, (200, 2)) / 10).astype(np.float32)  # many ties


def test_they_are_scikit_learns_on_what_is_known() -> None:
    found = figures(TRUTH, PROBABILITY, ("MEL", "NV"), 0.5)
    for column, label in enumerate(("MEL", "NV")):
        known = ~np.isnan(TRUTH[:, column])
        truth, score = TRUTH[known, column], PROBABILITY[known, column]
        entry = found["labels"][label]
        assert entry["auc"] == pytest.approx(metrics.roc_auc_score(truth, score))
        assert entry["average_precision"] == pytest.approx(metrics.average_precision_score(truth, score))
        assert entry["precision"] == pytest.approx(metrics.precision_score(truth, score >= 0.5))
        assert entry["recall"] == pytest.approx(metrics.recall_score(truth, score >= 0.5))
        assert (entry["positives"], entry["negatives"]) == ((truth == 1).sum(), (truth == 0).sum())
        assert entry["unknown"] == (~known).sum()
    both = [found["labels"][label]["auc"] for label in ("MEL", "NV")]
    assert found["macro"]["auc"] == pytest.approx(np.mean(both))
    assert found["macro"]["auc_labels"] == 2


def test_the_auc_counts_pairs_and_halves_ties() -> None:
    known = ~np.isnan(TRUTH[:, 0])
    truth, score = TRUTH[known, 0], PROBABILITY[known, 0]
    gap = score[truth == 1][:, None] - score[truth == 0][None]
    assert label_figures(truth, score, 0.5)["auc"] == pytest.approx((gap > 0).mean() + 0.5 * (gap == 0).mean())


def test_what_the_data_does_not_define_is_none() -> None:
    low = np.array([0.1, 0.2], dtype=np.float32)
    nothing = label_figures(np.array([0, 0], dtype=np.float32), low, 0.5)
    assert [nothing[name] for name in ("auc", "average_precision", "precision", "recall")] == [None] * 4
    all_positive = label_figures(np.array([1, 1], dtype=np.float32), low, 0.5)
    assert (all_positive["auc"], all_positive["precision"], all_positive["recall"]) == (None, None, 0.0)
    mixed = figures(np.array([[0, 1], [0, 0]], dtype=np.float32), np.stack([low, low], 1), ("A", "B"), 0.5)
    assert (mixed["macro"]["auc"], mixed["macro"]["auc_labels"]) == (0.0, 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.1, 1.1])
def test_what_is_no_probability_is_refused(value: float) -> None:
    spoilt = PROBABILITY.copy()
    spoilt[3, 1] = value
    with pytest.raises(TrainingError, match="not finite probabilities"):
        figures(TRUTH, spoilt, ("MEL", "NV"), 0.5)

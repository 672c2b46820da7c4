from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.metrics import log_loss
from sklearn.utils.class_weight import compute_class_weight

from melanoma_dist.config.run import LossConfig
from melanoma_dist.train.loss import MaskedLoss, balanced_weights

RNG = np.random.default_rng(0)
TARGETS = RNG.choice([0, 1, np.nan], (40, 3), p=[0.6, 0.2, 0.2]).astype(np.float32)
LOGITS = torch.from_numpy(RNG.normal(0, 3, (40, 3)).astype(np.float32))


def loss(**values: object) -> MaskedLoss:
    return MaskedLoss(LossConfig(**values), TARGETS)  # type: ignore[arg-type]


def test_it_is_pytorchs_on_known_entries_and_blind_elsewhere() -> None:
    logits = LOGITS.clone().requires_grad_()
    value = loss(class_weights="none")(logits, torch.from_numpy(TARGETS))
    known = ~np.isnan(TARGETS)
    reference = LOGITS[known].requires_grad_()
    expected = torch.nn.BCEWithLogitsLoss(reduction="sum")(reference, torch.from_numpy(TARGETS[known]))
    value.backward()
    expected.backward()
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)
    assert logits.grad is not None
    assert (logits.grad[~known] == 0).all()
    assert torch.allclose(logits.grad[known], reference.grad)  # type: ignore[arg-type]


def test_the_loss_of_probabilities_is_scikit_learns() -> None:
    probability = torch.sigmoid(LOGITS).numpy()
    known = ~np.isnan(TARGETS)
    expected = log_loss(TARGETS[known], probability[known].astype(np.float64))
    assert loss(class_weights="none").of_probabilities(probability, TARGETS) == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_probabilities_is_that_of_their_logits() -> None:
    weighted = loss(loss="focal", class_weights="balanced")
    expected = float(weighted(LOGITS, torch.from_numpy(TARGETS))) / (~np.isnan(TARGETS)).sum()
    assert weighted.of_probabilities(torch.sigmoid(LOGITS).numpy(), TARGETS) == pytest.approx(expected, rel=1e-5)


def test_the_loss_of_certain_and_wrong_probabilities_is_finite() -> None:
    certain = np.array([[1, 0, 1]], dtype=np.float32)
    assert 10 < loss(class_weights="none").of_probabilities(certain, 1 - certain) < 20


def test_focal_loss_without_focus_is_cross_entropy() -> None:
    targets = torch.from_numpy(TARGETS)
    assert torch.equal(loss(loss="focal", focal_gamma=0.0)(LOGITS, targets), loss()(LOGITS, targets))


def test_focal_loss_is_the_papers() -> None:
    value = loss(loss="focal", focal_gamma=2.0, class_weights="none")(LOGITS, torch.from_numpy(TARGETS))
    known = ~np.isnan(TARGETS)
    probability = 1 / (1 + np.exp(-LOGITS.numpy()[known].astype(np.float64)))
    right = np.where(TARGETS[known] == 1, probability, 1 - probability)
    assert value.item() == pytest.approx(-((1 - right) ** 2 * np.log(right)).sum(), rel=1e-5)


@pytest.mark.parametrize("gamma", [0.3, 1.0, 2.0])
def test_focal_gradients_are_finite_for_certain_predictions(gamma: float) -> None:
    logits = torch.tensor([[40.0, -40.0, 0.0]] * 2, requires_grad=True)
    targets = torch.tensor([[1.0, 0.0, 1.0], [torch.nan, torch.nan, torch.nan]])
    loss(loss="focal", focal_gamma=gamma)(logits, targets).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (logits.grad[1] == 0).all()


def test_balanced_weights_are_scikit_learns() -> None:
    weights = balanced_weights(TARGETS)
    for column in range(3):
        known = TARGETS[~np.isnan(TARGETS[:, column]), column]
        expected = compute_class_weight("balanced", classes=np.array([0.0, 1.0]), y=known)
        assert weights[:, column] == pytest.approx(expected, rel=1e-6)


def test_a_label_with_one_answer_is_not_weighted() -> None:
    targets = np.array([[1, 0, np.nan]] * 4, dtype=np.float32)
    assert (balanced_weights(targets) == 1).all()

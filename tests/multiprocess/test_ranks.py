"""What must not depend on the number of ranks, on real ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from melanoma_dist.errors import TrainingError

from ..unit.samples import tiny
from . import jobs
from .harness import on_ranks

CASES = {
    "transformer": tiny(),
    "unequal shares": tiny(batch_size=9),
    "accumulation": tiny(batch_size=9, accumulate=2),
    "convnext, moving average, hidden layer": tiny(backbone="test_convnext", ema_decay=0.9, hidden=16, clip_norm=0.5),
    "focal, balanced drawing": tiny(loss="focal", balance=True, labels="isic2017", optimizer="adamw", lr=1e-4),
}


def alone(config: object, data: Path, steps: int = 4) -> jobs.Steps:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return jobs.first_steps(jobs.World(), config, data, steps)  # type: ignore[arg-type]
    finally:
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def together(data: Path) -> list[list[jobs.Steps]]:
    """Per rank of two, the first steps of every case."""
    results = on_ranks(2, jobs.first_steps_of_each, list(CASES.values()), data, 4)
    failures = [each for each in results if isinstance(each, Exception)]
    if failures:
        raise failures[0]
    return results


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_take_the_steps_of_one(case: str, together: list[list[jobs.Steps]], data: Path) -> None:
    number = list(CASES).index(case)
    one = alone(CASES[case], data)
    ranks = [rank[number] for rank in together]
    for step, whole in enumerate(one.samples):
        batch = np.empty_like(whole)
        batch[0::2], batch[1::2] = ranks[0].samples[step], ranks[1].samples[step]
        assert (batch == whole).all()
        assert one.known[step] == ranks[0].known[step] == ranks[1].known[step]
    initial = alone(CASES[case], data, steps=0).state
    moved = max(np.abs(one.state[key] - initial[key]).max() for key in initial)
    assert moved > 1e-4
    for rank in ranks:
        assert rank.loss == pytest.approx(one.loss, rel=1e-5)
        for key, value in one.state.items():
            assert np.abs(rank.state[key] - value).max() < 1e-5, key
            assert (rank.state[key] == ranks[0].state[key]).all(), key
        if one.average is not None:
            assert rank.average is not None
            for key, value in one.average.items():
                assert np.abs(rank.average[key] - value).max() < 1e-5, key


def test_what_ranks_tell_each_other() -> None:
    for everyone, total, value in on_ranks(3, jobs.collectives):
        assert everyone == [0, 1, 10, 11, 20, 21]
        assert total == pytest.approx(0.6)
        assert value == {"rank": 0}


def test_validation_is_the_same_bits_on_any_number_of_ranks(data: Path) -> None:
    config = tiny(backbone="test_resnet", head_norm="batch")
    one = on_ranks(1, jobs.validation, config, data)
    assert len(np.unique(one[0][0])) > 100
    for size in (2, 3):
        for probability, metrics in on_ranks(size, jobs.validation, config, data):
            assert np.array_equal(probability, one[0][0])
            assert metrics == one[0][1]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights whose running statistics are far from those of a new model."""
    torch.manual_seed(1)
    state = timm.create_model("test_resnet").state_dict()
    for key, value in state.items():
        if key.endswith("running_mean"):
            value -= 0.5  # upwards, so that the frozen trunk's features are not all cut to 0
        elif key.endswith("running_var"):
            value *= 4
    path = tmp_path_factory.mktemp("weights") / "test_resnet.safetensors"
    save_file(state, path)
    return path


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
def test_all_ranks_begin_with_the_same_model_and_validate_the_same(
    data: Path, weights: Path, frozen: bool, ema_decay: float
) -> None:
    """Given weights are read by the main rank alone; their running statistics have to reach the others too."""
    config = tiny(
        backbone="test_resnet", head_norm="batch", weights=str(weights), trunk_norm="batch", ema_decay=ema_decay
    )
    first, second = on_ranks(2, jobs.statistics, config, data, frozen)
    for moment in ("initial", "after", "logits"):
        for key, value in first[moment].items():
            assert np.array_equal(value, second[moment][key]), f"{moment}: {key} differs between the ranks"
    running = [key for key in first["before"] if key.endswith("running_mean")]
    if frozen:
        trunk = [key for key in first["initial"] if key.startswith("trunk.")]
        assert all(np.array_equal(first["after"][key], first["initial"][key]) for key in trunk)
    assert any(not np.array_equal(first["before"][key], second["before"][key]) for key in running)
    for key in running:
        middle = (first["before"][key] + second["before"][key]) / 2
        assert np.allclose(first["after"][key], middle, atol=1e-6)


def test_frozen_norms_have_the_statistics_of_the_weights_on_every_rank(data: Path, weights: Path) -> None:
    config = tiny(backbone="test_resnet", head_norm="batch", weights=str(weights), trunk_norm="frozen")
    published = load_file(weights)
    for rank in on_ranks(2, jobs.statistics, config, data, False):
        for moment in ("initial", "before", "after"):
            running = [key for key in rank[moment] if key.startswith("trunk.") and "running_" in key]
            assert running
            for key in running:
                assert np.array_equal(rank[moment][key], published[key.removeprefix("trunk.")].numpy()), (moment, key)


@pytest.mark.parametrize("victim", [0, 1])
def test_nan_on_one_rank_is_skipped_by_all(data: Path, victim: int) -> None:
    config = tiny(backbone="test_resnet", head_norm="batch", optimizer="adam")
    (skipped, model), (also, other) = on_ranks(2, jobs.one_rank_meets_nan, config, data, victim, limit_s=90)
    assert skipped == also == 1
    assert all(np.isfinite(value).all() for value in (*model.values(), *other.values()))
    learnt = [key for key in model if "running" not in key]
    assert all(np.array_equal(model[key], other[key]) for key in learnt)


@pytest.mark.parametrize("victim", [0, 1])
def test_nan_on_one_rank_ends_all_of_them_with_one_message_where_none_may_be_skipped(data: Path, victim: int) -> None:
    results = on_ranks(2, jobs.one_rank_meets_nan, tiny(max_skipped_steps=0), data, victim, limit_s=90)
    assert [type(each) for each in results] == [TrainingError] * 2
    assert str(results[0]) == str(results[1])
    assert "1 steps of one epoch, lastly step 3, were skipped" in str(results[0])

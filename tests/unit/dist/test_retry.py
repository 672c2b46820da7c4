from __future__ import annotations

import pytest
import ray
from ray.exceptions import ActorDiedError

from melanoma_dist.dist.units import Decision, retry
from melanoma_dist.errors import ConfigError, DataError, MelanomaDistError, TrainingError


@pytest.mark.parametrize("kind", [MelanomaDistError, ConfigError, DataError, TrainingError])
def test_what_the_package_raised_on_purpose_would_come_again(kind: type[MelanomaDistError]) -> None:
    assert retry(kind("why"), 0, 3) == Decision(False, "it would fail again")


@pytest.mark.parametrize("error", [ActorDiedError(), RuntimeError("a rank died"), MemoryError()], ids=repr)
def test_a_death_is_worth_as_many_tries_as_allowed(error: BaseException) -> None:
    decisions = [retry(error, restarts, 2) for restarts in range(4)]
    assert [decision.again for decision in decisions] == [True, True, False, False]
    assert decisions[0].why == "restart 1 of 2 from its last checkpoint"
    assert decisions[1].why == "restart 2 of 2 from its last checkpoint"
    assert decisions[2].why == "it was restarted 2 times (--max-restarts 2)"


def test_no_restarts_means_none() -> None:
    assert not retry(RuntimeError(), 0, 0).again


def test_importing_and_deciding_start_no_ray() -> None:
    retry(RuntimeError(), 0, 3)
    assert not ray.is_initialized()

from __future__ import annotations

import pytest
import ray
from ray.core.generated.common_pb2 import ActorDiedErrorContext
from ray.exceptions import ActorDiedError

from melanoma_dist.config.fault_tolerance import FaultToleranceConfig
from melanoma_dist.distributed.retry import Decision, Failures, retry
from melanoma_dist.errors import ConfigError, DataError, MelanomaDistError, RankError, TrainingError

TWO = FaultToleranceConfig(max_restarts=2, max_preemptions=1)
NODE = "The actor died because its node has died. Node Id: 0123"


@pytest.mark.parametrize("kind", [MelanomaDistError, ConfigError, DataError, TrainingError])
def test_errors_raised_on_purpose_are_not_retried(kind: type[MelanomaDistError]) -> None:
    assert retry(kind("why"), Failures(), TWO) == Decision(False, "it would fail again")


@pytest.mark.parametrize(
    "error", [ActorDiedError(), RuntimeError("a rank died"), MemoryError(), RankError("rank 1 hangs")], ids=repr
)
def test_a_crash_is_retried_up_to_the_limit(error: BaseException) -> None:
    before = Failures()
    decisions = [retry(error, before, TWO) for _ in range(4)]
    assert [decision.again for decision in decisions] == [True, True, False, False]
    assert decisions[0].why == "restart 1 of 2 from its last checkpoint"
    assert decisions[1].why == "restart 2 of 2 from its last checkpoint"
    assert decisions[2].why == "it was restarted 2 times (--max-restarts 2)"


def test_a_lost_node_does_not_count_as_a_crash() -> None:
    before = Failures()
    lost = ActorDiedError(ActorDiedErrorContext(error_message=NODE, actor_id=b"\0" * 16))
    assert retry(lost, before, TWO) == Decision(True, "its node is gone: start 1 of 1 from its last checkpoint")
    assert retry(RuntimeError(), before, TWO).why == "restart 1 of 2 from its last checkpoint"
    assert retry(lost, before, TWO) == Decision(False, "it was restarted 1 times (--max-preemptions 1)")
    assert before == Failures(crashes=1, lost_nodes=2)


def test_max_restarts_0_never_restarts() -> None:
    assert not retry(RuntimeError(), Failures(), FaultToleranceConfig(max_restarts=0)).again


def test_the_decision_needs_no_running_ray() -> None:
    retry(RuntimeError(), Failures(), TWO)
    assert not ray.is_initialized()

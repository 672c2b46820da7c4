"""Decides whether a failed unit restarts: never after an error that would repeat, and within limits after others."""

from __future__ import annotations

from dataclasses import dataclass

from ray.exceptions import RayActorError

from melanoma_dist.config.fault_tolerance import FaultToleranceConfig
from melanoma_dist.distributed.workers import ProcessDied
from melanoma_dist.errors import MelanomaDistError, RankError


@dataclass(frozen=True)
class Decision:
    """Whether to restart a failed unit, and why."""

    again: bool
    why: str


@dataclass
class Failures:
    """The failures of a unit so far."""

    crashes: int = 0
    lost_nodes: int = 0
    """Failures of the unit's node, for which the unit is not to blame."""


def retry(error: BaseException, before: Failures, limits: FaultToleranceConfig) -> Decision:
    """Decide about a failed unit, and add the failure to ``before``."""
    if isinstance(error, MelanomaDistError) and not isinstance(error, RankError):
        return Decision(False, "it would fail again")
    if _of_node(error):
        before.lost_nodes += 1
        return _within(before.lost_nodes, limits.max_preemptions, "its node is gone: start", "--max-preemptions")
    before.crashes += 1
    return _within(before.crashes, limits.max_restarts, "restart", "--max-restarts")


def _within(count: int, most: int, what: str, flag: str) -> Decision:
    if count > most:
        return Decision(False, f"it was restarted {most} times ({flag} {most})")
    return Decision(True, f"{what} {count} of {most} from its last checkpoint")


def _of_node(error: BaseException) -> bool:
    """Whether the unit was lost with its node."""
    return isinstance(error, RayActorError) and (
        error.preempted or "node has died" in str(error) or "node was terminated" in str(error)
    )


def brief(error: BaseException) -> str:
    """An error in one line. For a dead process, Ray's text is a paragraph of possible causes."""
    if isinstance(error, RayActorError | ProcessDied):
        return "its process is gone: killed, or short of memory"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__

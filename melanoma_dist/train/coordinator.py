"""Lets the ranks of a unit agree between two steps: to save a checkpoint, to pause. Finds lost ranks.

Saving is collective, so all ranks must do it after the same step; yet only the main rank knows that it is time. The
requests travel through a gloo process group of their own, on the CPU: the round of one step runs while the next step is
computed, so no rank waits for it and no GPU is synchronized. Every rank reads the same answer after the same step. A
rank that is lost or hangs shows here, within the timeout, by its number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from enum import IntEnum
from typing import NamedTuple, cast

import torch
import torch.distributed as dist

from melanoma_dist.errors import MelanomaDistError, RankError
from melanoma_dist.world import World

_ROLL_CALL = timedelta(seconds=3)


class Request(IntEnum):
    """What a rank requests after a step. The highest request of any rank holds for all."""

    CONTINUE = 0
    SAVE = 1
    PAUSE = 2
    """Save and end."""


class _Round(NamedTuple):
    """An exchange of requests in flight."""

    work: dist.Work
    highest: torch.Tensor  # a scalar, once ``work`` is done


class StepCoordinator:
    """One rank's end of the agreement. All ranks of a unit create it at the same point."""

    def __init__(self, world: World, timeout_s: float) -> None:
        """``timeout_s``: how long a rank waits for the others."""
        self._world, self._timeout_s = world, timeout_s
        self._group: dist.ProcessGroup | None = None
        self._roll_call: dist.ProcessGroup | None = None  # spare: a group that timed out once carries nothing more
        self._round: _Round | None = None
        if world.size > 1:
            self._group = _new_group(timedelta(seconds=timeout_s))
            self._roll_call = _new_group(_ROLL_CALL)

    def exchange(self, request: Request) -> Request:
        """Exchange requests; every rank calls it after every step. Among several ranks the answer is a step late.

        A request that the answer already grants is not sent again: it would be granted twice.
        """
        if self._group is None:
            return request
        answer = Request.CONTINUE
        if self._round is not None:
            self._round.work.wait()
            answer = Request(int(self._round.highest))
        highest = torch.tensor(int(request if request > answer else Request.CONTINUE))
        work = dist.all_reduce(highest, dist.ReduceOp.MAX, self._group, async_op=True)
        self._round = _Round(work, highest)
        return answer

    @contextmanager
    def convert_rank_errors(self) -> Iterator[None]:
        """Convert errors of collectives to RankError with the numbers of the missing ranks."""
        try:
            yield
        except MelanomaDistError:
            raise
        except RuntimeError as error:
            if self._group is None or not _is_of_collectives(error):
                raise
            raise RankError(self._describe_missing()) from error

    def _describe_missing(self) -> str:
        """Call the roll: the main rank hears from every other rank, and those hear from it alone."""
        waited = f"no answer within {self._timeout_s:g} s (--collective-timeout-s)"
        try:
            dist.monitored_barrier(self._roll_call, timeout=_ROLL_CALL, wait_all_ranks=True)
        except RuntimeError as error:
            if not self._world.is_main:
                return f"rank 0 of {self._world.size} is lost or hangs, or a rank that it waits for: {waited}"
            missing = re.search(r"Ranks ([\d, ]*\d)", str(error))
            if missing:
                return f"of {self._world.size} ranks, lost or hanging: {missing[1]}; {waited}"
        return f"ranks lost each other: {waited}"


def _new_group(timeout: timedelta) -> dist.ProcessGroup:
    return cast(dist.ProcessGroup, dist.new_group(backend="gloo", timeout=timeout))


def _is_of_collectives(error: RuntimeError) -> bool:
    """Tell whether ranks wait for each other in vain: on the CPU, PyTorch has no class for such errors."""
    text = str(error).lower()
    return isinstance(error, dist.DistError) or any(
        sign in text for sign in ("timed out", "connection closed", "connection reset", "gloo", "nccl", "socket")
    )

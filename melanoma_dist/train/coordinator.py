"""What the ranks of a unit agree on between two steps: to save a checkpoint, to leave; and who is missing.

A process group of its own, of gloo on the CPU, carries the wishes: the round of one step runs while the next one is
computed, so that no rank waits for it and no GPU is asked. Every rank reads the same answer after the same step. A rank
that is lost or hangs shows here, within the timeout, by its number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from enum import IntEnum
from typing import Any

import torch
import torch.distributed as dist

from melanoma_dist.errors import MelanomaDistError, RankError
from melanoma_dist.world import World

_ROLL_CALL = timedelta(seconds=3)


class Request(IntEnum):
    """What a rank wants done after a step. The strongest request of any rank is that of all."""

    CONTINUE = 0
    SAVE = 1
    PAUSE = 2
    """Save and end."""


class StepCoordinator:
    """The coordinator of one rank with the others of its unit; made by all of them at the same point."""

    def __init__(self, world: World, timeout_s: float) -> None:
        """``timeout_s``: how long a rank waits for the others."""
        self._world, self._timeout_s = world, timeout_s
        self._group: Any = None
        self._roll: Any = None  # unused until somebody is missing: a group that timed out once carries nothing more
        self._round: tuple[Any, torch.Tensor] | None = None
        if world.size > 1:
            self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))
            self._roll = dist.new_group(backend="gloo", timeout=_ROLL_CALL)

    def exchange(self, request: Request) -> Request:
        """Called by every rank after every step. Among several, a request is answered one step later, to all alike.

        A request that is answered right now is not carried further: it would come true twice.
        """
        if self._group is None:
            return request
        answer = Request.CONTINUE
        if self._round is not None:
            work, told = self._round
            work.wait()
            answer = Request(int(told))
        mine = torch.tensor(int(request if request > answer else Request.CONTINUE))
        self._round = dist.all_reduce(mine, dist.ReduceOp.MAX, self._group, async_op=True), mine
        return answer

    @contextmanager
    def convert_rank_errors(self) -> Iterator[None]:
        """Raises RankError, with the numbers of the missing ranks, where others cannot be waited for any more."""
        try:
            yield
        except MelanomaDistError:
            raise
        except RuntimeError as error:
            if self._group is None or not _of_collectives(error):
                raise
            raise RankError(self._accusation()) from error

    def _accusation(self) -> str:
        """Who is missing, by a roll call: the main rank hears every other one, and those hear it alone."""
        waited = f"no answer within {self._timeout_s:g} s (--collective-timeout-s)"
        try:
            dist.monitored_barrier(self._roll, timeout=_ROLL_CALL, wait_all_ranks=True)
        except RuntimeError as error:
            if not self._world.is_main:
                return f"rank 0 of {self._world.size} is lost or hangs, or a rank that it waits for: {waited}"
            missing = re.search(r"Ranks ([\d, ]*\d)", str(error))
            if missing:
                return f"of {self._world.size} ranks, lost or hanging: {missing[1]}; {waited}"
        return f"ranks lost each other: {waited}"


def _of_collectives(error: RuntimeError) -> bool:
    """Whether an error is of ranks that wait for each other: PyTorch has no class for it on the CPU."""
    text = str(error).lower()
    return isinstance(error, dist.DistError) or any(
        sign in text for sign in ("timed out", "connection closed", "connection reset", "gloo", "nccl", "socket")
    )

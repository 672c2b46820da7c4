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

_ROLL_CALL = timedelta(seconds=10)


class Wish(IntEnum):
    """What a rank wants done after a step. The strongest wish of any rank is that of all."""

    GO_ON = 0
    SAVE = 1
    LEAVE = 2
    """Save and end."""


class Agreement:
    """The agreement of one rank with the others of its unit; made by all of them at the same point."""

    def __init__(self, world: World, timeout_s: float) -> None:
        """``timeout_s``: how long a rank waits for the others."""
        self._world, self._timeout_s = world, timeout_s
        self._group: Any = None
        self._round: tuple[Any, torch.Tensor] | None = None
        if world.size > 1:
            self._group = dist.new_group(backend="gloo", timeout=timedelta(seconds=timeout_s))

    def on(self, wish: Wish) -> Wish:
        """Called by every rank after every step. Among several, a wish is answered one step later, to all alike."""
        if self._group is None:
            return wish
        answer = Wish.GO_ON
        if self._round is not None:
            work, told = self._round
            work.wait()
            answer = Wish(int(told))
        mine = torch.tensor(int(wish))
        self._round = dist.all_reduce(mine, dist.ReduceOp.MAX, self._group, async_op=True), mine
        return answer

    @contextmanager
    def kept(self) -> Iterator[None]:
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
        """Who is missing, by a roll call of the ranks that noticed."""
        try:
            dist.monitored_barrier(self._group, timeout=_ROLL_CALL, wait_all_ranks=True)
        except RuntimeError as error:
            missing = sorted({int(number) for number in re.findall(r"\d+", _named(str(error)))} - {self._world.rank})
            if missing:
                names = ", ".join(str(number) for number in missing)
                one = len(missing) == 1
                return (
                    f"rank{'' if one else 's'} {names} of {self._world.size} {'is' if one else 'are'} lost or "
                    f"{'hangs' if one else 'hang'}: no answer within {self._timeout_s:g} s (--collective-timeout-s)"
                )
        return f"ranks lost each other for {self._timeout_s:g} s (--collective-timeout-s)"


def _of_collectives(error: RuntimeError) -> bool:
    """Whether an error is of ranks that wait for each other: PyTorch has no class for it on the CPU."""
    text = str(error).lower()
    return isinstance(error, dist.DistError) or any(
        sign in text for sign in ("timed out", "connection closed", "connection reset", "gloo", "nccl", "socket")
    )


def _named(text: str) -> str:
    """The part of a roll call's message that names ranks."""
    found = re.search(r"[Rr]anks? ([\d, ]+?)(?: successfully)?(?: failed| did not|\s+in)", text)
    return found[1] if found else ""

"""What a rank knows of its place among the ranks of its unit. Read once by ``dist.world``, handed down from there."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class World:
    """Rank ``rank`` of ``size``, computing on GPU ``gpu`` or on the CPU, decoding with ``threads`` threads."""

    rank: int = 0
    size: int = 1
    gpu: int | None = None
    threads: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this rank writes what only one may write."""
        return self.rank == 0

    @property
    def device(self) -> str:
        """The device's name as PyTorch spells it."""
        return "cpu" if self.gpu is None else f"cuda:{self.gpu}"

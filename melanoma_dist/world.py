"""The place of a rank in its unit. ``train.device`` builds it once; everything else receives it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class World:
    """Rank ``rank`` of ``size``, on GPU ``gpu`` or the CPU, with ``threads`` decoding threads."""

    rank: int = 0
    size: int = 1
    gpu: int | None = None
    threads: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this rank writes the files of the unit."""
        return self.rank == 0

    @property
    def device(self) -> str:
        """PyTorch's name of the device."""
        return "cpu" if self.gpu is None else f"cuda:{self.gpu}"

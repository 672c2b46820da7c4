"""The layout of units over GPUs or CPU cores: pure arithmetic, with the reason in words.

Units first, ranks second: folds are independent, so each GPU trains one. A unit gets several GPUs, at most one node,
only if GPUs would idle otherwise. Ranks have a cost: they exchange gradients, and batch norm sees a smaller share of
the batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from melanoma_dist.errors import ConfigError

_EFFICIENCY_PER_DOUBLING = 0.98  # of twice the ranks in one node: an assumption, not measured yet
_MIN_SPEEDUP = 0.9  # more ranks must save a tenth of the time
_MIN_IMAGES = 8  # per rank and step; with fewer, batch statistics are poor


@dataclass(frozen=True)
class Machines:
    """The GPUs and the CPU cores of each node."""

    gpus: tuple[int, ...]
    cores: tuple[int, ...]


@dataclass(frozen=True)
class Layout:
    """The place of every unit."""

    ranks: int  # per unit
    side_by_side: int  # units at a time
    gpu: bool
    cores: float  # per rank, below 1 if there are more ranks than cores
    reason: str
    gpu_share: float = 1.0  # of a GPU, per rank

    @property
    def threads(self) -> int:
        """Threads per rank, for decoding and, on the CPU, for computing."""
        return max(1, int(self.cores))


def lay_out(machines: Machines, units: int, batch_size: int, gpus: int, per_unit: float | None) -> Layout:
    """Lay out ``units`` units on ``gpus`` GPUs, or on the CPU if ``gpus`` is 0.

    ``per_unit`` is the number of ranks of a unit, or a share of a GPU. Raises ConfigError if no node has enough GPUs
    for the ranks of a unit, or if a rank gets fewer than two images of a batch.
    """
    if per_unit is not None and 2 * per_unit > batch_size:
        rule = f"every rank needs at least 2 images of a global batch of {batch_size}"
        raise ConfigError.of("gpus_per_unit" if gpus else "ranks_per_unit", per_unit, rule)
    if gpus == 0:
        return _on_cores(machines, units, int(per_unit or 1))
    if per_unit is not None and per_unit < 1:
        return _on_shares(machines, units, gpus, per_unit)
    return _on_gpus(machines, units, batch_size, gpus, None if per_unit is None else int(per_unit))


def capacity(machines: Machines, layout: Layout) -> int:
    """How many units of a layout fit on the machines: fewer than planned after the loss of a node."""
    if not layout.gpu:
        return sum(math.floor(cores / (layout.ranks * layout.cores) + 1e-9) for cores in machines.cores)
    per_gpu = math.floor(1 / layout.gpu_share + 1e-9)
    return sum(gpus * per_gpu // layout.ranks for gpus in machines.gpus)


def grown(machines: Machines, gpus: int) -> Machines:
    """The machines with ``gpus`` GPUs: new nodes are assumed to be like the one with the most GPUs."""
    largest = max(range(len(machines.gpus)), key=lambda node: machines.gpus[node])
    missing = max(0, gpus - sum(machines.gpus))
    new = math.ceil(missing / machines.gpus[largest])
    return Machines(
        (*machines.gpus, *[machines.gpus[largest]] * new), (*machines.cores, *[machines.cores[largest]] * new)
    )


def _on_cores(machines: Machines, units: int, ranks: int) -> Layout:
    side_by_side = max(1, min(units, _slots(list(machines.cores), ranks)))
    share = _cores_per_rank(machines.cores, ranks, side_by_side)
    cores = _count(sum(machines.cores), "core")
    reason = f"{_folds(side_by_side)} at a time on {_count(ranks, 'CPU rank')} each: {cores}, --gpus 0"
    return Layout(ranks, side_by_side, False, share, reason)


def _cores_per_rank(nodes: tuple[int, ...], ranks: int, side_by_side: int) -> float:
    """The most whole cores per rank with which all units fit, or a share of a core if there are more ranks."""
    share = max(nodes) // ranks
    while share > 1 and _slots(list(nodes), share * ranks) < side_by_side:
        share -= 1
    return float(share) if share else _part(max(nodes) / ranks)


def _part(cores: float) -> float:
    """A share of a core, rounded down to the precision of Ray."""
    return max(math.floor(cores * 100) / 100, 0.01)


def _on_gpus(machines: Machines, units: int, batch_size: int, gpus: int, requested: int | None) -> Layout:
    nodes = _in_use(machines.gpus, gpus)
    largest = max(nodes)
    if requested is not None and requested > largest:
        rule = f"a fold trains within one node, and the largest has {largest} GPUs in use"
        raise ConfigError.of("gpus_per_unit", requested, rule, f"At most --gpus-per-unit {largest}.")
    ranks = requested or _best_ranks(nodes, units, batch_size)
    side_by_side = min(units, _slots(nodes, ranks))
    idle = gpus - side_by_side * ranks
    why = "as requested" if requested else "fewer GPUs than folds" if gpus < units else "a GPU for each fold"
    if not requested and ranks > 1:
        why = "GPUs would idle with fewer ranks"
    reason = f"{_folds(side_by_side)} at a time on {_count(ranks, 'GPU')} each: {_count(gpus, 'GPU')}, {why}"
    reason += f"; {idle} idle" if idle else ""
    return Layout(ranks, side_by_side, True, _whole_or_part(_cores_per_gpu(machines)), reason)


def _on_shares(machines: Machines, units: int, gpus: int, share: float) -> Layout:
    per_gpu = math.floor(1 / share + 1e-9)
    side_by_side = min(units, gpus * per_gpu)
    reason = f"{_folds(side_by_side)} at a time, {per_gpu} on each of {_count(gpus, 'GPU')}, as requested"
    return Layout(1, side_by_side, True, _whole_or_part(_cores_per_gpu(machines) / per_gpu), reason, share)


def _cores_per_gpu(machines: Machines) -> float:
    """The fewest cores per GPU of any node."""
    return min(cores / gpus for cores, gpus in zip(machines.cores, machines.gpus, strict=True) if gpus)


def _whole_or_part(cores: float) -> float:
    """Whole cores for a rank, or a share of one."""
    return float(math.floor(cores)) if cores >= 1 else _part(cores)


def _best_ranks(nodes: list[int], units: int, batch_size: int) -> int:
    """The fewest ranks per unit, unless more ranks save a tenth of the time."""
    most = max(1, min(max(nodes), batch_size // _MIN_IMAGES))
    best = 1
    for ranks in range(2, most + 1):
        if _slots(nodes, ranks) and _time(nodes, units, ranks) < _MIN_SPEEDUP * _time(nodes, units, best):
            best = ranks
    return best


def _time(nodes: list[int], units: int, ranks: int) -> float:
    """Time of all units; the time of one unit on one GPU is 1."""
    waves = math.ceil(units / _slots(nodes, ranks))
    return float(waves / (ranks * _EFFICIENCY_PER_DOUBLING ** math.log2(ranks)))


def _slots(nodes: list[int], ranks: int) -> int:
    return sum(gpus // ranks for gpus in nodes)


def _in_use(nodes: tuple[int, ...], gpus: int) -> list[int]:
    """GPUs in use on each node, the largest nodes first."""
    used: list[int] = []
    for available in sorted(nodes, reverse=True):
        used.append(min(available, gpus - sum(used)))
    return used


def _folds(count: int) -> str:
    return _count(count, "fold")


def _count(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"

"""What trains the units of a command: machines, the layout of units on them, and workers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from melanoma_dist import console
from melanoma_dist.config.hardware import HardwareConfig
from melanoma_dist.config.run import RunConfig
from melanoma_dist.distributed.plan import Layout, Machines, lay_out
from melanoma_dist.distributed.preflight import check_temporary

if TYPE_CHECKING:  # Ray takes seconds to load
    from melanoma_dist.distributed.workers import Workers


@dataclass(frozen=True)
class WorkerPool:
    """Machines, the layout of a run's folds on them, and workers that load their libraries in advance."""

    machines: Machines
    layout: Layout
    workers: Workers


@contextmanager
def open_worker_pool(config: RunConfig) -> Iterator[WorkerPool]:
    """Start or join Ray, and workers in it. Raises ConfigError or ClusterError."""
    if config.hardware.address is None:
        check_temporary()
    with console.phase("loading Ray"):
        from melanoma_dist.distributed.units import open_workers
    with start_ray(config.hardware) as machines:
        # For all folds, finished or not: a resumed fold then has the same ranks and threads as before.
        layout = layout_of(config, machines, config.repeats * config.data.folds)
        with open_workers(layout) as workers:
            yield WorkerPool(machines, layout, workers)


@contextmanager
def start_ray(hardware: HardwareConfig) -> Iterator[Machines]:
    """Start a private Ray cluster or join one, and show how long that takes. Leave or stop it at the end."""
    from melanoma_dist.distributed.cluster import joined

    with ExitStack() as stack:
        with console.phase(f"joining Ray at {hardware.address}" if hardware.address else "starting Ray"):
            machines = stack.enter_context(joined(hardware))
        yield machines


def plan(config: RunConfig, machines: Machines, units: int) -> Layout:
    """Lay the units out on the machines, and print the plan."""
    layout = layout_of(config, machines, units)
    console.info(f"plan: {layout.reason}")
    return layout


def layout_of(config: RunConfig, machines: Machines, units: int) -> Layout:
    """Lay the units out as the flags say. Raises ConfigError if they do not fit the machines."""
    hardware = config.hardware
    gpus = sum(machines.gpus) if hardware.gpus is None else hardware.gpus
    per_unit = hardware.ranks_per_unit if gpus == 0 else hardware.gpus_per_unit
    return lay_out(machines, units, config.input.batch_size, gpus, per_unit)

"""Units in a Ray cluster. The only module that imports ray.train.

Every unit has a driving actor. A unit of one rank trains in that actor, which holds its cores and its
share of a GPU: a worker group takes a minute to start on a busy machine, and a kept actor takes a second. For several
ranks, the actor runs a Ray Train job, whose worker group has its own resources. After a failure the actor is killed.
What Ray Train failed to release (a placement group, a controller) goes with it, so that no unit blocks another one.
"""

from __future__ import annotations

import importlib
import shutil
import uuid
from typing import Any, Self, TypedDict, cast

import ray
from ray import ObjectRef
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from melanoma_dist.distributed.capacity import Capacity, alive_machines
from melanoma_dist.distributed.demand import Demand
from melanoma_dist.distributed.event_queue import EventQueue, Reporter
from melanoma_dist.distributed.gpus import own_gpu
from melanoma_dist.distributed.plan import Layout
from melanoma_dist.errors import MelanomaDistError, RankError
from melanoma_dist.train.events import Event
from melanoma_dist.train.unit import SCRATCH, Unit

_NODE_LOSS_S = 20.0  # until Ray has noticed that a node is gone, and starts nothing there


class ClusterWorkers:
    """What workers in the cluster that this process is connected to share: its capacity, and the events of units."""

    def __init__(self, layout: Layout) -> None:
        self._layout, self._capacity, self._demand = layout, Capacity(layout), Demand(layout)
        # The queue lives on this node, so that it is not lost with another one.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._queue = EventQueue.options(num_cpus=0, scheduling_strategy=here).remote()  # type: ignore[attr-defined]

    def __exit__(self, *_: object) -> None:
        """Withdraw the demand. Units end with the connection to the cluster."""
        self._demand.withdraw()

    def capacity(self, running: int) -> int:
        """See ``Workers``."""
        if not running and self._capacity.units(waiting=False) == 0:
            self._demand.expect(1, 0)
        return self._capacity.units(waiting=not running)

    def pause_s(self, error: BaseException) -> float:
        """Some time after a loss in a cluster: a unit that starts on a lost node would die too."""
        return _NODE_LOSS_S if isinstance(error, RayActorError) and len(alive_machines().cores) > 1 else 0.0

    def take_events(self) -> list[tuple[int | None, Unit, Event]]:
        """See ``Workers``."""
        events: list[tuple[int | None, Unit, Event]] = ray.get(self._queue.take_all.remote())
        return events

    def answer(self, ticket: int, answer: str | None) -> None:
        """See ``Workers``."""
        self._queue.answer.remote(ticket, answer)

    def request_stop(self) -> None:
        """See ``Workers``."""
        self._queue.request_stop.remote()


class RayWorkers(ClusterWorkers):
    """Runs units in driving actors, which stay for the next ones."""

    def __init__(self, layout: Layout) -> None:
        """Drivers start at once and load their libraries, as many as leave this command a core of its own."""
        super().__init__(layout)
        self._idle: list[ActorHandle[Any]] = []
        self._drivers: dict[ObjectRef[None], ActorHandle[Any]] = {}
        self._warm(min(self._capacity.units(waiting=False), max(1, sum(alive_machines().cores) - 1)))

    def __enter__(self) -> Self:
        return self

    def capacity(self, running: int) -> int:
        """See ``Workers``. Idle drivers make room if a lost node reduced it."""
        units = super().capacity(running)
        self._keep_idle(units - running)
        return units

    def expect(self, units: int) -> None:
        """See ``Workers``. Idle drivers of units that will not come release their nodes."""
        if self._demand.expect(units, self._capacity.units(waiting=False)):
            self._keep_idle(units - len(self._drivers))

    def start(self, unit: Unit) -> ObjectRef[None]:
        """Start a unit in an idle driver or a new one."""
        driver = self._idle.pop(0) if self._idle else self._new_driver()
        job: ObjectRef[None] = driver.train.remote(unit, self._layout, self._queue)
        self._drivers[job] = driver
        return job

    def wait(self, jobs: list[ObjectRef[None]], timeout_s: float) -> list[ObjectRef[None]]:
        """See ``Workers``."""
        ready: list[ObjectRef[None]] = ray.wait(jobs, timeout=timeout_s)[0]
        return ready

    def conclude(self, job: ObjectRef[None]) -> BaseException | None:
        """See ``Workers``."""
        driver, error = self._drivers.pop(job), _error_of(job)
        if error is None:
            self._idle.append(driver)
            return None
        # The same fault may have killed idle drivers, for example with their node.
        idle = len(self._idle)
        for each in (driver, *self._idle):
            ray.kill(each)
        self._idle.clear()
        self._capacity.invalidate()
        if not self.pause_s(error):
            self._warm(idle + 1)  # this unit most likely starts again
        return error

    def _warm(self, count: int) -> None:
        """Start drivers, which load their libraries before they have a unit."""
        self._idle += [self._new_driver() for _ in range(count)]

    def _new_driver(self) -> ActorHandle[Any]:
        # The ranks of a worker group have their own resources.
        resources = {"num_cpus": self._layout.cores, "num_gpus": self._layout.gpu_share if self._layout.gpu else 0}
        held = resources if self._layout.ranks == 1 else {"num_cpus": 0}
        driver: ActorHandle[Any] = _Driver.options(**held).remote()  # type: ignore[attr-defined]
        driver.prepare.remote(self._layout)
        return driver

    def _keep_idle(self, count: int) -> None:
        """Kill idle drivers but ``count``: a driver of one rank holds what another unit may need."""
        while self._idle and len(self._idle) > max(count, 0):
            ray.kill(self._idle.pop())


def _error_of(job: ObjectRef[None]) -> BaseException | None:
    try:
        ray.get(job)
    except RayTaskError as error:
        cause: BaseException = error.cause if isinstance(error.cause, Exception) else error
        return cause
    except RayError as error:
        return cast(BaseException, error)
    return None


@ray.remote
class _Driver:
    """A process that runs one job after another."""

    def prepare(self, layout: Layout) -> None:
        """Load what the first unit needs."""
        if layout.ranks > 1:
            importlib.import_module("ray.train.torch")
            return
        from melanoma_dist.train.device import warm_up

        warm_up(own_gpu() if layout.gpu else None)

    def train(self, unit: Unit, layout: Layout, queue: ActorHandle[EventQueue]) -> None:
        """See ``drive``."""
        drive(unit, layout, queue)


def drive(unit: Unit, layout: Layout, queue: ActorHandle[EventQueue]) -> None:
    """Train a unit, here or in a worker group. Raises its error."""
    if layout.ranks > 1:
        _fit(unit, layout, queue)
    else:
        _train(unit, layout, queue, own_gpu() if layout.gpu else None)


class _RankSettings(TypedDict):
    """What Ray Train passes to every rank."""

    unit: Unit
    layout: Layout
    queue: ActorHandle[EventQueue]


def _fit(unit: Unit, layout: Layout, queue: ActorHandle[EventQueue]) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    # Ray Train's own record covers one attempt and is deleted after it. Ours is in the checkpoints.
    for leftover in unit.folder.glob(f"{SCRATCH}*"):  # of a killed attempt
        shutil.rmtree(leftover, ignore_errors=True)
    scratch = unit.folder / f"{SCRATCH}{uuid.uuid4().hex[:8]}"
    scratch.mkdir(parents=True)
    settings: _RankSettings = {"unit": unit, "layout": layout, "queue": queue}
    trainer = TorchTrainer(
        _rank,
        train_loop_config=settings,
        torch_config=TorchConfig(
            backend="nccl" if layout.gpu else "gloo", timeout_s=unit.config.fault_tolerance.collective_timeout_s
        ),
        scaling_config=ScalingConfig(
            num_workers=layout.ranks,
            use_gpu=layout.gpu,
            resources_per_worker={"CPU": layout.cores, **({"GPU": layout.gpu_share} if layout.gpu else {})},
            placement_strategy="STRICT_PACK",  # one node
        ),
        run_config=RunConfig(
            name="attempt",
            storage_path=str(scratch),
            failure_config=FailureConfig(max_failures=0, controller_failure_limit=0),
        ),
    )
    try:
        trainer.fit()
    except TrainingFailedError as error:
        causes = getattr(error, "worker_failures", {}).values()
        # The ranks beside a failed one raise RankError, so any other error of ours is nearer to the cause.
        own = sorted(
            (cause for cause in causes if isinstance(cause, MelanomaDistError)),
            key=lambda cause: isinstance(cause, RankError),
        )
        raise next(iter(own), error) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _rank(settings: _RankSettings) -> None:
    """The function of every rank of a worker group."""
    from ray.train.torch import get_device

    layout = settings["layout"]
    # A rank may see all GPUs of its node. Ray Train knows which one belongs to the rank.
    gpu = get_device().index if layout.gpu else None
    _train(settings["unit"], layout, settings["queue"], gpu)


def _train(unit: Unit, layout: Layout, queue: ActorHandle[EventQueue], gpu: int | None) -> None:
    """Train a unit as one of its ranks, or as its only one."""
    from melanoma_dist.train.device import detect, release
    from melanoma_dist.train.loop import train_unit

    reporter = Reporter(unit, queue)
    threads = unit.config.hardware.decode_threads or layout.threads
    try:
        train_unit(unit, detect(gpu, threads), reporter, reporter.stop_requested)
    finally:
        release(gpu)

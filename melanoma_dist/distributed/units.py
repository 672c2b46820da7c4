"""Units as Ray Train jobs, several side by side. The only module that imports ray.train.

Every job has its own driving actor, which is killed after a failure. What Ray Train failed to release (a placement
group, a controller) goes with the actor, so that no unit blocks another one. Ray Train restarts nothing: ``retry``
decides whether a failed unit starts again.

On GPUs, and for several ranks, Ray Train starts a worker group. A single CPU rank trains in Ray Train's local mode, in
the driving actor itself, which then holds the cores: a worker group takes a minute to start, the training only two.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol, TypedDict, cast

import ray
from ray import ObjectRef
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from melanoma_dist import console
from melanoma_dist.distributed.capacity import Capacity
from melanoma_dist.distributed.cluster import alive_machines
from melanoma_dist.distributed.event_queue import EventQueue, Reporter
from melanoma_dist.distributed.plan import Layout
from melanoma_dist.distributed.retry import Decision, Failures, retry
from melanoma_dist.errors import MelanomaDistError, RankError, ResumeError, TrainingError
from melanoma_dist.signals import defer_interrupt, mark_saved, stop_requested
from melanoma_dist.train.events import Event, Note
from melanoma_dist.train.fallbacks import fall_back
from melanoma_dist.train.unit import SCRATCH, Unit

_POLL_S = 0.25
_NODE_LOSS_S = 20.0  # until Ray has noticed that a node is gone, and starts nothing there


class WorkSource(Protocol):
    """Source of the units to train, and listener to their progress: the folds of a run, or the units of a sweep."""

    def next_unit(self) -> Unit | None:
        """The unit to start now. None means: not now, and if no unit is running, no more units at all."""

    def on_event(self, unit: Unit, event: Event) -> str | None:
        """Take a report of a unit. For an ``EpochDone``, return the reason to stop the unit, or None."""

    def on_exit(self, unit: Unit, seconds: float) -> None:
        """A unit exited: finished, stopped or paused. It held its devices for ``seconds``."""

    def on_failure(self, unit: Unit, seconds: float, error: MelanomaDistError) -> None:
        """A unit failed and will not restart. Raising here ends all other units; their checkpoints stay."""

    def on_idle(self) -> None:
        """Called a few times a second."""


def train_units(source: WorkSource, layout: Layout, grace_s: float) -> None:
    """Train the units of ``source``, at most ``layout.side_by_side`` at a time, until there are no more.

    After a signal, all units save a checkpoint and stop, for at most ``grace_s`` seconds. Then KeyboardInterrupt is
    raised.
    """
    _Engine(source, layout, grace_s).run()


class _Engine:
    """Starts, restarts and stops units."""

    def __init__(self, source: WorkSource, layout: Layout, grace_s: float) -> None:
        self._source, self._layout, self._grace_s = source, layout, grace_s
        # The queue lives on this node, so that it is not lost with another one.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        self._queue = EventQueue.options(num_cpus=0, scheduling_strategy=here).remote()  # type: ignore[attr-defined]
        self._restarts: deque[_Attempt] = deque()
        self._idle_drivers: list[ActorHandle[Any]] = []
        self._running: dict[ObjectRef[None], _Attempt] = {}
        self._capacity = Capacity(layout)
        self._start_after = 0.0  # no unit starts before, by the monotonic clock
        self._stop_by: float | None = None  # when the grace period after a signal ends, by the monotonic clock
        self._saved = True

    def run(self) -> None:
        """Raises KeyboardInterrupt after a signal, when all units have saved or the grace period is over."""
        with defer_interrupt():
            while not (self._stop_units() if stop_requested() else self._start_units()):
                finished = self._wait()
                self._deliver_events()
                self._source.on_idle()
                for task in finished:
                    self._conclude(task)
        if self._saved and not self._running and not self._restarts:
            mark_saved()
        if stop_requested():  # also if the signal arrived during the exit of the last unit
            raise KeyboardInterrupt

    def _start_units(self) -> bool:
        """Start as many units as the cluster has capacity for. Returns whether all units are done."""
        if time.monotonic() < self._start_after:
            return False
        # Never more: a unit that waits for resources would time out and count as failed.
        while len(self._running) < self._free_capacity():
            if self._restarts:
                earlier = self._restarts.popleft()
                self._start(earlier.unit, earlier.failures, earlier.seconds)
            elif (unit := self._source.next_unit()) is not None:
                self._start(unit, Failures(), 0.0)
            else:
                break
        return not self._running and not self._restarts

    def _stop_units(self) -> bool:
        """Let all units save and stop. Returns whether they have, or the grace period is over."""
        now = time.monotonic()
        if self._stop_by is None:
            self._stop_by = now + self._grace_s
            self._queue.request_stop.remote()
            saving = f"folds save at their next step, within {self._grace_s} s"
            console.info(f"stopping: {saving}; a second signal stops at once.")
        return not self._running or now >= self._stop_by

    def _wait(self) -> list[ObjectRef[None]]:
        """The units that exited within a moment."""
        if not self._running:
            time.sleep(_POLL_S)
            return []
        ready: list[ObjectRef[None]] = ray.wait(list(self._running), timeout=_POLL_S)[0]
        return ready

    def _free_capacity(self) -> int:
        """How many units fit on the cluster. Idle drivers make room if a lost node reduced it."""
        units = self._capacity.units(waiting=not self._running)
        while self._idle_drivers and len(self._running) + len(self._idle_drivers) > units:
            ray.kill(self._idle_drivers.pop())
        return units

    def _start(self, unit: Unit, failures: Failures, seconds: float) -> None:
        cores = self._layout.cores if _in_process(self._layout) else 0  # a worker group has its own resources
        driver = self._idle_drivers.pop() if self._idle_drivers else _Driver.options(num_cpus=cores).remote()  # type: ignore[attr-defined]
        task = driver.train.remote(unit, self._layout, self._queue)
        self._running[task] = _Attempt(unit, driver, failures, seconds, time.monotonic())

    def _deliver_events(self) -> None:
        """Pass the units' reports to the source, and its answers back."""
        for ticket, unit, event in ray.get(self._queue.take_all.remote()):
            answer = self._source.on_event(unit, event)
            if ticket is not None:
                self._queue.answer.remote(ticket, answer)

    def _conclude(self, task: ObjectRef[None]) -> None:
        """Account for a unit whose driver returned or died."""
        attempt = self._running.pop(task)
        attempt.seconds += time.monotonic() - attempt.start
        unit, error = attempt.unit, _error_of(task)
        if error is None:
            self._idle_drivers.append(attempt.driver)
            self._source.on_exit(unit, attempt.seconds)
            return
        # The same fault may have killed idle drivers, for example with their node.
        for driver in (attempt.driver, *self._idle_drivers):
            ray.kill(driver)
        self._idle_drivers.clear()
        self._capacity.invalidate()
        if isinstance(error, RayActorError) and len(alive_machines().cores) > 1:
            self._start_after = time.monotonic() + _NODE_LOSS_S  # a unit started on a lost node would die too
        if self._stop_by is not None and not isinstance(error, ResumeError):  # the next command resumes the unit
            self._saved = False
            self._source.on_event(unit, Note(unit.fold, f"not saved: {_brief(error)}"))
            return
        fallback = fall_back(error, unit)
        limits = unit.config.fault_tolerance
        decision = Decision(True, fallback) if fallback else retry(error, attempt.failures, limits)
        if decision.again:
            self._source.on_event(unit, Note(unit.fold, f"{_brief(error)}; {decision.why}"))
            self._restarts.append(attempt)
        else:
            self._source.on_failure(unit, attempt.seconds, _as_own_error(error, unit, decision))


@dataclass
class _Attempt:
    """One start of a unit."""

    unit: Unit
    driver: ActorHandle[Any]
    failures: Failures
    seconds: float  # of this attempt and the earlier ones
    start: float  # by the monotonic clock


def _in_process(layout: Layout) -> bool:
    return layout.ranks == 1 and not layout.gpu


def _error_of(task: ObjectRef[None]) -> BaseException | None:
    try:
        ray.get(task)
    except RayTaskError as error:
        cause: BaseException = error.cause if isinstance(error.cause, Exception) else error
        return cause
    except RayError as error:
        return cast(BaseException, error)
    return None


@ray.remote
class _Driver:
    """A process that runs one job after another."""

    def train(self, unit: Unit, layout: Layout, queue: ActorHandle[EventQueue]) -> None:
        _fit(unit, layout, queue)


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
            num_workers=0 if _in_process(layout) else layout.ranks,
            use_gpu=layout.gpu,
            resources_per_worker={"CPU": layout.cores, **({"GPU": layout.gpu_share} if layout.gpu else {})},
            placement_strategy="STRICT_PACK" if layout.ranks > 1 else "PACK",  # one node
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
    """The function of every rank of a unit."""
    from ray.train.torch import get_device

    from melanoma_dist.train.device import detect
    from melanoma_dist.train.loop import train_unit

    unit, layout = settings["unit"], settings["layout"]
    # A rank may see all GPUs of its node. Ray Train knows which one belongs to the rank.
    gpu = get_device().index if layout.gpu else None
    reporter = Reporter(unit, settings["queue"])
    threads = unit.config.hardware.decode_threads or layout.threads
    train_unit(unit, detect(gpu, threads), reporter, reporter.stop_requested)


def _as_own_error(error: BaseException, unit: Unit, decision: Decision) -> MelanomaDistError:
    if isinstance(error, MelanomaDistError):
        return error
    return TrainingError(f"{unit.name} failed and {decision.why}: {_brief(error)}")


def _brief(error: BaseException) -> str:
    """An error in one line. For a dead process, Ray's text is a paragraph of possible causes."""
    if isinstance(error, RayActorError):
        return "its process is gone: killed, or short of memory"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__

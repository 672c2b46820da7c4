"""Units as Ray Train jobs, several side by side. The only module that imports ray.train.

Each job is driven by an actor of its own, which is killed after a failure: whatever Ray Train failed to release (a
placement group, a controller) goes with it, and no unit can hold up another. Ray Train is not asked to restart
anything: whether a unit that failed is worth another try is decided here, by ``retry``.

On GPUs, and for several ranks, Ray Train starts a worker group. A single CPU rank is trained by Ray Train's local mode
in the driving actor itself, which holds its cores: a worker group would take a minute to start where training takes
two.
"""

from __future__ import annotations

import shutil
import time
import uuid
from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol, cast

import ray
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
_SETTLE_S = 20.0  # until Ray has noticed that a node is gone, and starts nothing there


class WorkSource(Protocol):
    """What is to be trained, and what becomes of it: the folds of a run, or the units of a sweep."""

    def next_unit(self) -> Unit | None:
        """The unit to start now. None: none for the time being, and where none is running, none at all."""

    def on_event(self, unit: Unit, event: Event) -> str | None:
        """Take what a unit reports. The answer to an ``EpochDone``: the reason to stop the unit, or None."""

    def on_exit(self, unit: Unit, seconds: float) -> None:
        """A unit is finished, or stopped as it was told; it held its devices for ``seconds``."""

    def on_failure(self, unit: Unit, seconds: float, error: MelanomaDistError) -> None:
        """A unit failed for good. What is raised here ends the others, whose checkpoints stay."""

    def on_idle(self) -> None:
        """Called a few times a second."""


def train_units(agenda: WorkSource, layout: Layout, grace_s: float) -> None:
    """Train what the agenda names, ``layout.side_by_side`` units at a time, until there is nothing more.

    Asked to end by a signal, it has all units save and leave, for at most ``grace_s`` seconds, and raises
    KeyboardInterrupt.
    """
    _Engine(agenda, layout, grace_s).run()


class _Engine:
    """Keeps units running."""

    def __init__(self, agenda: WorkSource, layout: Layout, grace_s: float) -> None:
        self._agenda, self._layout, self._grace_s = agenda, layout, grace_s
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # On this node: it must not be lost with another one.
        self._mailbox = EventQueue.options(num_cpus=0, scheduling_strategy=here).remote()  # type: ignore[attr-defined]
        self._again: deque[_Attempt] = deque()  # that failed, to be started again
        self._drivers: list[Any] = []  # idle ones
        self._running: dict[Any, _Attempt] = {}
        self._room = Capacity(layout)
        self._settled = 0.0  # from when on units are started, by the monotonic clock
        self._leave_by: float | None = None  # where units were asked to save and leave, by the monotonic clock
        self._saved = True

    def run(self) -> None:
        """Raises KeyboardInterrupt after a signal, when all units have saved or their time is up."""
        with defer_interrupt():
            while not (self._leaving() if stop_requested() else self._at_work()):
                done = self._wait()
                self._deliver()
                self._agenda.on_idle()
                for task in done:
                    self._conclude(task)
        if self._saved and not self._running and not self._again:
            mark_saved()
        if stop_requested():  # also where the signal came with the last unit's end
            raise KeyboardInterrupt

    def _at_work(self) -> bool:
        """Start what there is room for. Returns whether all is done."""
        settled = time.monotonic() >= self._settled
        if settled:
            self._start_units()
        return settled and not self._running and not self._again

    def _leaving(self) -> bool:
        """Have all units save and leave. Returns whether they have, or their time is up."""
        now = time.monotonic()
        if self._leave_by is None:
            self._leave_by = now + self._grace_s
            self._mailbox.leave.remote()
            console.info(
                f"stopping: folds save at their next step, within {self._grace_s} s; a second signal stops now."
            )
        return not self._running or now >= self._leave_by

    def _wait(self) -> list[Any]:
        """The units that ended, after a moment."""
        if not self._running:
            time.sleep(_POLL_S)
            return []
        done: list[Any] = ray.wait(list(self._running), timeout=_POLL_S)[0]
        return done

    def _start_units(self) -> None:
        # Never more than there is room for: a unit that waits for resources would time out and count as failed.
        while len(self._running) < self._fitting():
            if self._again:
                before = self._again.popleft()
                self._start(before.unit, before.failures, before.seconds)
            elif (unit := self._agenda.next_unit()) is not None:
                self._start(unit)
            else:
                return

    def _fitting(self) -> int:
        """For how many units there is room, once idle drivers hold none of it that a lost node's units need."""
        room = self._room.units(waiting=not self._running)
        while self._drivers and len(self._running) + len(self._drivers) > room:
            ray.kill(self._drivers.pop())
        return room

    def _start(self, unit: Unit, failures: Failures | None = None, spent: float = 0.0) -> None:
        cores = _own_cores(self._layout)
        driver = self._drivers.pop() if self._drivers else _Driver.options(num_cpus=cores).remote()  # type: ignore[attr-defined]
        task = driver.train.remote(unit, self._layout, self._mailbox)
        self._running[task] = _Attempt(unit, driver, failures or Failures(), spent, time.monotonic())

    def _deliver(self) -> None:
        """Hand on what units reported, and answer those that wait for it."""
        for ticket, unit, event in ray.get(self._mailbox.take.remote()):
            answer = self._agenda.on_event(unit, event)
            if ticket is not None:
                self._mailbox.answer.remote(ticket, answer)

    def _conclude(self, task: Any) -> None:
        attempt = self._running.pop(task)
        attempt.seconds += time.monotonic() - attempt.start
        unit, error = attempt.unit, _error_of(task)
        if error is None:
            self._drivers.append(attempt.driver)
            self._agenda.on_exit(unit, attempt.seconds)
            return
        # Whatever ended this driver may have ended idle ones too, with their node.
        for driver in (attempt.driver, *self._drivers):
            ray.kill(driver)
        self._drivers.clear()
        self._room.look_again()
        if isinstance(error, RayActorError) and len(alive_machines().cores) > 1:
            self._settled = time.monotonic() + _SETTLE_S  # its node may be lost: what starts there now dies too
        if self._leave_by is not None and not isinstance(error, ResumeError):  # it goes on with the next command
            self._saved = False
            self._agenda.on_event(unit, Note(unit.fold, f"not saved: {_brief(error)}"))
            return
        conceded = fall_back(error, unit)
        decision = Decision(True, conceded) if conceded else retry(error, attempt.failures, unit.config.fault_tolerance)
        if decision.again:
            self._agenda.on_event(unit, Note(unit.fold, f"{_brief(error)}; {decision.why}"))
            self._again.append(attempt)
        else:
            self._agenda.on_failure(unit, attempt.seconds, _told(error, unit, decision))


@dataclass
class _Attempt:
    """A unit in training."""

    unit: Unit
    driver: Any
    failures: Failures
    seconds: float  # that it and those before it took
    start: float  # by the monotonic clock


def _in_process(layout: Layout) -> bool:
    return layout.ranks == 1 and not layout.gpu


def _own_cores(layout: Layout) -> float:
    """What a driving actor holds itself: a worker group has resources of its own."""
    return layout.cores if _in_process(layout) else 0


def _error_of(task: Any) -> BaseException | None:
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
    """Drives one job after another; a process of its own."""

    def train(self, unit: Unit, layout: Layout, mailbox: Any) -> None:
        _fit(unit, layout, mailbox)


def _fit(unit: Unit, layout: Layout, mailbox: Any) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    # Ray Train keeps a record of its own; ours is in the checkpoints: its is of this attempt only, and goes after it.
    for left in unit.folder.glob(f"{SCRATCH}*"):  # by an attempt that was killed
        shutil.rmtree(left, ignore_errors=True)
    scratch = unit.folder / f"{SCRATCH}{uuid.uuid4().hex[:8]}"
    scratch.mkdir(parents=True)
    trainer = TorchTrainer(
        _rank,
        train_loop_config={"unit": unit, "layout": layout, "mailbox": mailbox},
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
        failures = list(getattr(error, "worker_failures", {}).values())
        told = [cause for cause in failures if isinstance(cause, MelanomaDistError)]
        told.sort(key=lambda cause: isinstance(cause, RankError))  # of ranks that another's failure left alone
        raise next(iter(told), error) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _rank(settings: dict[str, Any]) -> None:
    """What each rank of a unit runs."""
    from ray.train.torch import get_device

    from melanoma_dist.distributed.world import detect
    from melanoma_dist.train.loop import train_unit

    unit, layout = settings["unit"], settings["layout"]
    # A rank may see all GPUs of its node; Ray Train knows which one is its own.
    gpu = get_device().index if layout.gpu else None
    reporter = Reporter(unit, settings["mailbox"])
    threads = unit.config.hardware.decode_threads or layout.threads
    train_unit(unit, detect(gpu, threads), reporter, reporter.stop_requested)


def _told(error: BaseException, unit: Unit, decision: Decision) -> MelanomaDistError:
    if isinstance(error, MelanomaDistError):
        return error
    return TrainingError(f"{unit.name} failed and {decision.why}: {_brief(error)}")


def _brief(error: BaseException) -> str:
    """An error in one line. Of a process that is gone, Ray lists in a paragraph what might have been the cause."""
    if isinstance(error, RayActorError):
        return "its process is gone: killed, or short of memory"
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__

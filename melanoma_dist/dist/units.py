"""Units as Ray Train jobs, several side by side. The only module that imports ray.train.

Each job is driven by an actor of its own, which is killed after a failure: whatever Ray Train failed to release (a
placement group, a controller) goes with it, and no unit can hold up another. Ray Train is not asked to restart anything:
whether a unit that failed is worth another try is decided here, by ``retry``.

On GPUs, and for several ranks, Ray Train starts a worker group. A single CPU rank is trained by Ray Train's local mode in
the driving actor itself, which holds its cores: a worker group would take a minute to start where training takes two.
"""

from __future__ import annotations

import asyncio
import shutil
import time
import uuid
from collections import deque
from dataclasses import dataclass
from typing import Any, Protocol, cast

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from melanoma_dist.dist.plan import Layout
from melanoma_dist.errors import MelanomaDistError, TrainingError
from melanoma_dist.train.events import EpochDone, Event, Note
from melanoma_dist.train.unit import Unit

_POLL_S = 0.25


@dataclass(frozen=True)
class Decision:
    """Whether to start a failed unit again, and why."""

    again: bool
    why: str


def retry(error: BaseException, restarts: int, max_restarts: int) -> Decision:
    """What to do about a unit that failed after ``restarts`` restarts."""
    if isinstance(error, MelanomaDistError):
        return Decision(False, "it would fail again")
    if restarts >= max_restarts:
        return Decision(False, f"it was restarted {restarts} times (--max-restarts {max_restarts})")
    return Decision(True, f"restart {restarts + 1} of {max_restarts} from its last checkpoint")


class Agenda(Protocol):
    """What is to be trained, and what becomes of it: the folds of a run, or the units of a sweep."""

    def next(self) -> Unit | None:
        """The unit to start now. None: none for the time being, and where none is running, none at all."""

    def hear(self, unit: Unit, event: Event) -> str | None:
        """Take what a unit reports. The answer to an ``EpochDone``: the reason to stop the unit, or None."""

    def ended(self, unit: Unit, seconds: float) -> None:
        """A unit is finished, or stopped as it was told; it held its devices for ``seconds``."""

    def failed(self, unit: Unit, seconds: float, error: MelanomaDistError) -> None:
        """A unit failed for good. What is raised here ends the others, whose checkpoints stay."""

    def idle(self) -> None:
        """Called a few times a second."""


def train_units(agenda: Agenda, layout: Layout) -> None:
    """Train what the agenda names, ``layout.side_by_side`` units at a time, until there is nothing more."""
    _Engine(agenda, layout).run()


class _Engine:
    """Keeps units running."""

    def __init__(self, agenda: Agenda, layout: Layout) -> None:
        self._agenda, self._layout = agenda, layout
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        # On this node: it must not be lost with another one.
        self._mailbox = _Mailbox.options(num_cpus=0, scheduling_strategy=here).remote()  # type: ignore[attr-defined]
        self._again: deque[_Attempt] = deque()  # that failed, to be started again
        self._drivers: list[Any] = []  # idle ones
        self._running: dict[Any, _Attempt] = {}

    def run(self) -> None:
        while True:
            self._start_units()
            if not self._running:
                return
            done, _ = ray.wait(list(self._running), timeout=_POLL_S)
            self._deliver()
            self._agenda.idle()
            for task in done:
                self._conclude(task)

    def _start_units(self) -> None:
        while len(self._running) < self._layout.side_by_side:
            if self._again:
                before = self._again.popleft()
                self._start(before.unit, before.restarts + 1, before.seconds)
            elif (unit := self._agenda.next()) is not None:
                self._start(unit)
            else:
                return

    def _start(self, unit: Unit, restarts: int = 0, spent: float = 0.0) -> None:
        cores = _own_cores(self._layout)
        driver = self._drivers.pop() if self._drivers else _Driver.options(num_cpus=cores).remote()  # type: ignore[attr-defined]
        task = driver.train.remote(unit, self._layout, self._mailbox)
        self._running[task] = _Attempt(unit, driver, restarts, spent, time.monotonic())

    def _deliver(self) -> None:
        """Hand on what units reported, and answer those that wait for it."""
        for ticket, unit, event in ray.get(self._mailbox.take.remote()):
            answer = self._agenda.hear(unit, event)
            if ticket is not None:
                self._mailbox.answer.remote(ticket, answer)

    def _conclude(self, task: Any) -> None:
        attempt = self._running.pop(task)
        attempt.seconds += time.monotonic() - attempt.start
        unit, error = attempt.unit, _error_of(task)
        if error is None:
            self._drivers.append(attempt.driver)
            self._agenda.ended(unit, attempt.seconds)
            return
        ray.kill(attempt.driver)
        decision = retry(error, attempt.restarts, unit.config.hardware.max_restarts)
        if decision.again:
            self._agenda.hear(unit, Note(unit.fold, f"{_last_line(error)}; {decision.why}"))
            self._again.append(attempt)
        else:
            self._agenda.failed(unit, attempt.seconds, _told(error, unit, decision))


@dataclass
class _Attempt:
    """A unit in training."""

    unit: Unit
    driver: Any
    restarts: int
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
class _Mailbox:
    """Where ranks, on any node, leave events for the command, and wait for its answers."""

    def __init__(self) -> None:
        self._events: list[tuple[int | None, Unit, Event]] = []
        self._asked: dict[int, asyncio.Future[str | None]] = {}
        self._tickets = 0

    async def put(self, unit: Unit, event: Event) -> None:
        self._events.append((None, unit, event))

    async def ask(self, unit: Unit, event: Event) -> str | None:
        """Leave an event and wait for the answer."""
        self._tickets += 1
        future: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._asked[self._tickets] = future
        self._events.append((self._tickets, unit, event))
        return await future

    async def take(self) -> list[tuple[int | None, Unit, Event]]:
        """The events since the last call, each with a ticket where somebody waits for an answer."""
        events, self._events = self._events, []
        return events

    async def answer(self, ticket: int, answer: str | None) -> None:
        self._asked.pop(ticket).set_result(answer)


class _Reporter:
    """What the main rank of a unit reports to."""

    def __init__(self, unit: Unit, mailbox: Any) -> None:
        self._unit, self._mailbox = unit, mailbox

    def __call__(self, event: Event) -> str | None:
        if self._unit.judged and isinstance(event, EpochDone):
            answer: str | None = ray.get(self._mailbox.ask.remote(self._unit, event))
            return answer
        self._mailbox.put.remote(self._unit, event)
        return None


@ray.remote
class _Driver:
    """Drives one job after another; a process of its own."""

    def train(self, unit: Unit, layout: Layout, mailbox: Any) -> None:
        _fit(unit, layout, mailbox)


def _fit(unit: Unit, layout: Layout, mailbox: Any) -> None:
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    # Ray Train keeps a record of its own; ours is in the checkpoints, so its is of this attempt only, and goes after it.
    for left in unit.folder.glob(".ray-*"):  # by an attempt that was killed
        shutil.rmtree(left, ignore_errors=True)
    scratch = unit.folder / f".ray-{uuid.uuid4().hex[:8]}"
    scratch.mkdir(parents=True)
    trainer = TorchTrainer(
        _rank,
        train_loop_config={"unit": unit, "layout": layout, "mailbox": mailbox},
        torch_config=TorchConfig(
            backend="nccl" if layout.gpu else "gloo", timeout_s=unit.config.hardware.collective_timeout_s
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
        raise next((cause for cause in failures if isinstance(cause, MelanomaDistError)), error) from None
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _rank(settings: dict[str, Any]) -> None:
    """What each rank of a unit runs."""
    from ray.train.torch import get_device

    from melanoma_dist.dist.world import detect
    from melanoma_dist.train.loop import train_unit

    unit, layout = settings["unit"], settings["layout"]
    # A rank may see all GPUs of its node; Ray Train knows which one is its own.
    gpu = get_device().index if layout.gpu else None
    train_unit(unit, detect(gpu, layout.threads), _Reporter(unit, settings["mailbox"]))


def _told(error: BaseException, unit: Unit, decision: Decision) -> MelanomaDistError:
    if isinstance(error, MelanomaDistError):
        return error
    return TrainingError(f"{unit.name} failed and {decision.why}: {_last_line(error)}")


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:300] if lines else type(error).__name__

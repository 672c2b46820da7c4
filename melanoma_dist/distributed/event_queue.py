"""The queue through which units, on any node, report to the command and get its answers."""

from __future__ import annotations

import asyncio
import importlib
import time
from typing import TYPE_CHECKING

import ray
from ray import ObjectRef

from melanoma_dist.train.events import EpochDone, Event, Paused, StepDone, UnitDone
from melanoma_dist.train.unit import Unit

if TYPE_CHECKING:
    from ray.actor import ActorHandle

_POLL_S = 0.1


@ray.remote
class EventQueue:
    """Events of all units for the command, its answers, and its request to stop."""

    def __init__(self) -> None:
        # Import while ranks start. Otherwise the first event imports these modules, and the command waits for seconds.
        for module in (Unit.__module__, StepDone.__module__):
            importlib.import_module(module)
        self._events: list[tuple[int | None, Unit, Event]] = []
        self._pending: dict[int, asyncio.Future[str | None]] = {}
        self._trials: dict[str, Unit] = {}
        self._epochs: dict[Unit, asyncio.Queue[tuple[int, Event] | None]] = {}
        self._tickets = 0
        self._stop_requested = False

    async def put(self, unit: Unit, event: Event) -> None:
        """Append an event."""
        self._events.append((None, unit, event))

    async def ask(self, unit: Unit, event: Event) -> str | None:
        """Append an event and wait for the answer to it."""
        self._tickets += 1
        future: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._pending[self._tickets] = future
        if unit in self._epochs:
            self._epochs[unit].put_nowait((self._tickets, event))
        else:
            self._events.append((self._tickets, unit, event))
        return await future

    async def assign(self, trial_id: str, unit: Unit) -> None:
        """Note the unit of a trial of Ray Tune. The trial takes its epochs."""
        self._trials[trial_id], self._epochs[unit] = unit, asyncio.Queue()

    async def unit_of(self, trial_id: str) -> Unit:
        """The unit of a trial."""
        return self._trials.pop(trial_id)

    async def next_epoch(self, unit: Unit) -> tuple[int, Event] | None:
        """Wait for an epoch of a trial's unit: its ticket and event, or None when the unit left."""
        return await self._epochs[unit].get()

    async def leave(self, unit: Unit) -> None:
        """Note that a trial's unit left."""
        self._epochs[unit].put_nowait(None)

    async def take_all(self) -> list[tuple[int | None, Unit, Event]]:
        """Remove and return all events. An event that waits for an answer has a ticket, the others have None."""
        events, self._events = self._events, []
        return events

    async def answer(self, ticket: int, answer: str | None) -> None:
        """Answer the event with this ticket."""
        self._pending.pop(ticket).set_result(answer)

    async def request_stop(self) -> None:
        """Ask all units to save a checkpoint and stop."""
        self._stop_requested = True

    async def stop_requested(self) -> bool:
        """Whether units should save a checkpoint and stop."""
        return self._stop_requested


class Reporter:
    """The main rank's end of the queue."""

    def __init__(self, unit: Unit, queue: ActorHandle[EventQueue]) -> None:
        self._unit, self._queue = unit, queue
        self._answer: ObjectRef[bool] | None = None
        self._polled = time.monotonic()

    def __call__(self, event: Event) -> str | None:
        """Report an event. Returns the scheduler's answer to an ``EpochDone`` of a sweep, None otherwise."""
        if self._unit.reports_to_scheduler and isinstance(event, EpochDone):
            answer: str | None = ray.get(self._queue.ask.remote(self._unit, event))
            return answer
        delivery = self._queue.put.remote(self._unit, event)
        if isinstance(event, UnitDone | Paused):
            ray.get(delivery)  # it must arrive before the unit exits
        return None

    def stop_requested(self) -> bool:
        """Whether the unit should save and stop. Polls a few times a second, and no step waits for the answer."""
        now = time.monotonic()
        if now - self._polled < _POLL_S:
            return False
        self._polled, answer = now, self._answer
        if answer is not None and not ray.wait([answer], timeout=0)[0]:
            return False
        self._answer = self._queue.stop_requested.remote()
        return answer is not None and bool(ray.get(answer))

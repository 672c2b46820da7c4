"""How units, on any node, report to the command, and wait for its answers."""

from __future__ import annotations

import asyncio
import importlib
import time
from typing import Any

import ray

from melanoma_dist.train.events import EpochDone, Event, Paused, StepDone, UnitDone
from melanoma_dist.train.unit import Unit

_LOOK_S = 0.1


@ray.remote
class EventQueue:
    """Where ranks, on any node, leave events for the command, and wait for its answers."""

    def __init__(self) -> None:
        # While ranks start: else the first event brings these modules, and the command waits for seconds.
        for module in (Unit.__module__, StepDone.__module__):
            importlib.import_module(module)
        self._events: list[tuple[int | None, Unit, Event]] = []
        self._asked: dict[int, asyncio.Future[str | None]] = {}
        self._tickets = 0
        self._leaving = False

    async def put(self, unit: Unit, event: Event) -> None:
        """Leave an event."""
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
        """Answer the one who holds a ticket."""
        self._asked.pop(ticket).set_result(answer)

    async def leave(self) -> None:
        """Ask all units to save and leave."""
        self._leaving = True

    async def leaving(self) -> bool:
        """Whether units are asked to leave."""
        return self._leaving


class Reporter:
    """What the main rank of a unit reports to, and asks whether to leave."""

    def __init__(self, unit: Unit, mailbox: Any) -> None:
        self._unit, self._mailbox = unit, mailbox
        self._answer: Any = None  # that is awaited to the question whether to leave
        self._asked = time.monotonic()

    def __call__(self, event: Event) -> str | None:
        """Take an event of the unit; the answer to an ``EpochDone`` of a unit that is judged."""
        if self._unit.reports_to_scheduler and isinstance(event, EpochDone):
            answer: str | None = ray.get(self._mailbox.ask.remote(self._unit, event))
            return answer
        left = self._mailbox.put.remote(self._unit, event)
        if isinstance(event, UnitDone | Paused):
            ray.get(left)  # it is there before the unit has ended
        return None

    def stop_requested(self) -> bool:
        """Whether the unit is to save and leave. Asked a few times a second, and no step waits for the answer."""
        now = time.monotonic()
        if now - self._asked < _LOOK_S:
            return False
        self._asked, answer = now, self._answer
        if answer is not None and not ray.wait([answer], timeout=0)[0]:
            return False
        self._answer = self._mailbox.leaving.remote()
        return answer is not None and bool(ray.get(answer))

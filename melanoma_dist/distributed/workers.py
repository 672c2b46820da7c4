"""What runs units: the seam between the engine and Ray."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any, Protocol

from melanoma_dist.train.events import Event
from melanoma_dist.train.unit import Unit

Job = Any
"""One start of a unit: any hashable value."""


class ProcessDied(Exception):
    """The process of a unit died without an error of its own."""


class Workers(AbstractContextManager["Workers"], Protocol):
    """Runs units side by side. Leaving the context ends those that still run."""

    def capacity(self, running: int) -> int:
        """How many units can run at a time now. Waits for room for one if none is running.

        Raises TrainingError if there is no room for ten minutes.
        """

    def expect(self, units: int) -> None:
        """Say how many units could run at a time now: those that run, and those that wait for room."""

    def start(self, unit: Unit) -> Job:
        """Start a unit."""

    def wait(self, jobs: list[Job], timeout_s: float) -> list[Job]:
        """Those of ``jobs`` that exited. Waits at most ``timeout_s`` seconds for the first."""

    def conclude(self, job: Job) -> BaseException | None:
        """Release what a job that exited holds. Returns the error that ended it, or None."""

    def pause_s(self, error: BaseException) -> float:
        """Seconds in which no unit should start after ``error``."""

    def take_events(self) -> list[tuple[int | None, Unit, Event]]:
        """Remove and return the reports of all units. Those that wait for an answer have a ticket."""

    def answer(self, ticket: int, answer: str | None) -> None:
        """Answer the report with this ticket."""

    def request_stop(self) -> None:
        """Ask all units to save a checkpoint and stop."""

"""Trains units, several side by side: starts, restarts, stops and accounts for them.

``Workers`` run the units: Ray Train's, or plain processes on a machine where Ray does not start. They restart
nothing: ``retry`` decides whether a failed unit starts again.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass
from typing import Protocol

import ray

from melanoma_dist import console
from melanoma_dist.distributed.plan import Layout
from melanoma_dist.distributed.processes import ProcessWorkers
from melanoma_dist.distributed.ray_workers import RayWorkers
from melanoma_dist.distributed.retry import Decision, Failures, brief, retry
from melanoma_dist.distributed.workers import Job, Workers
from melanoma_dist.errors import MelanomaDistError, ResumeError, TrainingError
from melanoma_dist.signals import defer_interrupt, mark_saved, stop_requested
from melanoma_dist.train.events import Event, Note
from melanoma_dist.train.fallbacks import fall_back
from melanoma_dist.train.unit import Unit

_POLL_S = 0.25


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


def open_workers(layout: Layout) -> Workers:
    """The workers of a layout. They load their libraries while the command does other work."""
    return RayWorkers(layout) if ray.is_initialized() else ProcessWorkers(layout)


def train_units(
    source: WorkSource, layout: Layout, grace_s: float, workers: Workers | None = None, units: int | None = None
) -> None:
    """Train the units of ``source``, at most ``layout.side_by_side`` at a time, until there are no more.

    ``workers``: those of ``open_workers`` for the same layout. ``units``: how many there are at most, if that is known;
    an autoscaler is asked for no more. After a signal, all units save a checkpoint and stop, for at most ``grace_s``
    seconds. Then KeyboardInterrupt is raised.
    """
    with workers or open_workers(layout) as opened:
        _Engine(source, opened, grace_s, layout.side_by_side, units).run()


class _Engine:
    """Starts, restarts and stops units."""

    def __init__(
        self, source: WorkSource, workers: Workers, grace_s: float, side_by_side: int, units: int | None
    ) -> None:
        self._source, self._workers, self._grace_s = source, workers, grace_s
        self._side_by_side = side_by_side
        self._left = float("inf") if units is None else units  # units that have not ended
        self._restarts: deque[_Attempt] = deque()
        self._running: dict[Job, _Attempt] = {}
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
                for job in finished:
                    self._conclude(job)
        if self._saved and not self._running and not self._restarts:
            mark_saved()
        if stop_requested():  # also if the signal arrived during the exit of the last unit
            raise KeyboardInterrupt

    def _start_units(self) -> bool:
        """Start as many units as the cluster has capacity for. Returns whether all units are done."""
        if time.monotonic() < self._start_after:
            return False
        # Never more: a unit that waits for resources would time out and count as failed.
        while len(self._running) < self._workers.capacity(len(self._running)):
            if self._restarts:
                earlier = self._restarts.popleft()
                self._start(earlier.unit, earlier.failures, earlier.seconds)
            elif (unit := self._source.next_unit()) is not None:
                self._start(unit, Failures(), 0.0)
            else:
                self._workers.expect(len(self._running))
                break
        else:
            self._workers.expect(int(min(self._side_by_side, self._left)))
        return not self._running and not self._restarts

    def _stop_units(self) -> bool:
        """Let all units save and stop. Returns whether they have, or the grace period is over."""
        now = time.monotonic()
        if self._stop_by is None:
            self._stop_by = now + self._grace_s
            self._workers.request_stop()
            self._workers.expect(0)
            saving = f"folds save at their next step, within {self._grace_s} s"
            console.info(f"stopping: {saving}; a second signal stops at once.")
        return not self._running or now >= self._stop_by

    def _wait(self) -> list[Job]:
        """The units that exited within a moment."""
        if self._running:
            return self._workers.wait(list(self._running), _POLL_S)
        time.sleep(_POLL_S)
        return []

    def _start(self, unit: Unit, failures: Failures, seconds: float) -> None:
        self._running[self._workers.start(unit)] = _Attempt(unit, failures, seconds, time.monotonic())

    def _deliver_events(self) -> None:
        """Pass the units' reports to the source, and its answers back."""
        for ticket, unit, event in self._workers.take_events():
            answer = self._source.on_event(unit, event)
            if ticket is not None:
                self._workers.answer(ticket, answer)

    def _conclude(self, job: Job) -> None:
        """Account for a unit that exited or died."""
        attempt = self._running.pop(job)
        attempt.seconds += time.monotonic() - attempt.start
        unit, error = attempt.unit, self._workers.conclude(job)
        if error is None:
            self._left -= 1
            self._source.on_exit(unit, attempt.seconds)
            return
        self._start_after = time.monotonic() + self._workers.pause_s(error)
        if self._stop_by is not None and not isinstance(error, ResumeError):  # the next command resumes the unit
            self._saved = False
            self._source.on_event(unit, Note(unit.fold, f"not saved: {brief(error)}"))
            return
        fallback = fall_back(error, unit)
        limits = unit.config.fault_tolerance
        decision = Decision(True, fallback) if fallback else retry(error, attempt.failures, limits)
        if decision.again:
            self._source.on_event(unit, Note(unit.fold, f"{brief(error)}; {decision.why}"))
            self._restarts.append(attempt)
        else:
            self._left -= 1
            self._source.on_failure(unit, attempt.seconds, _as_own_error(error, unit, decision))


@dataclass
class _Attempt:
    """One start of a unit."""

    unit: Unit
    failures: Failures
    seconds: float  # of this attempt and the earlier ones
    start: float  # by the monotonic clock


def _as_own_error(error: BaseException, unit: Unit, decision: Decision) -> MelanomaDistError:
    if isinstance(error, MelanomaDistError):
        return error
    return TrainingError(f"{unit.name} failed and {decision.why}: {brief(error)}")

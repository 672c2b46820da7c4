"""Units of one CPU rank in plain processes, for a machine where Ray does not start."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection
from typing import TYPE_CHECKING, Self

from melanoma_dist.distributed.plan import Layout
from melanoma_dist.distributed.workers import ProcessDied
from melanoma_dist.train.events import EpochDone, Event
from melanoma_dist.train.unit import Unit

if TYPE_CHECKING:
    from multiprocessing.context import SpawnProcess
    from multiprocessing.synchronize import Event as Flag

_SPAWN = multiprocessing.get_context("spawn")
_EXIT_S = 5.0
_COMMAND_POLL_S = 1.0


@dataclass(frozen=True)
class _Ended:
    """A process's message that its unit ended, with the error that ended it, or None."""

    error: BaseException | None


class ProcessWorkers:
    """Runs units in processes, which stay for further units. A process whose unit failed is replaced."""

    def __init__(self, layout: Layout) -> None:
        """Processes start at once and load their libraries, as many as leave this command a core of its own."""
        self._layout, self._stop = layout, _SPAWN.Event()
        self._pipes: dict[SpawnProcess, connection.Connection] = {}
        self._idle: list[SpawnProcess] = []
        self._jobs: dict[int, SpawnProcess] = {}
        self._ended: dict[int, BaseException | None] = {}
        self._events: list[tuple[int | None, Unit, Event]] = []
        self._waiting: dict[int, SpawnProcess] = {}  # by ticket
        self._numbers = itertools.count(1)  # of jobs and tickets
        self._idle += [
            self._new_process() for _ in range(min(layout.side_by_side, max(1, len(os.sched_getaffinity(0)) - 1)))
        ]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._pipes:
            process.kill()
            process.join(_EXIT_S)

    def capacity(self, running: int) -> int:
        """See ``Workers``."""
        return self._layout.side_by_side

    def expect(self, units: int) -> None:
        """Nothing to do: one machine does not grow."""

    def start(self, unit: Unit) -> int:
        """See ``Workers``."""
        process = self._idle.pop(0) if self._idle else self._new_process()
        job = next(self._numbers)
        self._jobs[job] = process
        with suppress(OSError):  # it died: ``wait`` says so
            self._pipes[process].send(unit)
        return job

    def wait(self, jobs: list[int], timeout_s: float) -> list[int]:
        """See ``Workers``."""
        processes = [self._jobs[job] for job in jobs]
        connection.wait([each for process in processes for each in (process.sentinel, self._pipes[process])], timeout_s)
        for job in jobs:
            self._read(job)
        return [job for job in jobs if job in self._ended]

    def conclude(self, job: int) -> BaseException | None:
        """See ``Workers``."""
        process, error = self._jobs.pop(job), self._ended.pop(job)
        if error is None:
            self._idle.append(process)
            return None
        process.kill()
        process.join()
        self._pipes.pop(process).close()
        self._idle.append(self._new_process())  # the unit most likely starts again
        return error

    def pause_s(self, error: BaseException) -> float:
        """No pause: there is no other machine to lose."""
        return 0.0

    def take_events(self) -> list[tuple[int | None, Unit, Event]]:
        """See ``Workers``."""
        events, self._events = self._events, []
        return events

    def answer(self, ticket: int, answer: str | None) -> None:
        """See ``Workers``."""
        with suppress(OSError):  # it died meanwhile
            self._pipes[self._waiting.pop(ticket)].send(answer)

    def request_stop(self) -> None:
        """See ``Workers``."""
        self._stop.set()

    def _new_process(self) -> SpawnProcess:
        here, there = _SPAWN.Pipe()
        process = _SPAWN.Process(target=_work, args=(self._layout.threads, there, self._stop))
        process.start()
        there.close()  # so that its end closes the pipe
        self._pipes[process] = here
        return process

    def _read(self, job: int) -> None:
        """Take the messages of a job's process, and note its end."""
        process = self._jobs[job]
        pipe, is_alive = self._pipes[process], process.is_alive()  # in this order: what a dead process sent is all here
        try:
            while pipe.poll():
                message = pipe.recv()
                if isinstance(message, _Ended):
                    self._ended[job] = message.error
                else:
                    unit, event, asks = message
                    self._events.append((self._ticket(process) if asks else None, unit, event))
        except (EOFError, OSError):
            is_alive = False
        if not is_alive and job not in self._ended:
            process.join()
            self._ended[job] = ProcessDied(f"exit code {process.exitcode}")

    def _ticket(self, process: SpawnProcess) -> int:
        ticket = next(self._numbers)
        self._waiting[ticket] = process
        return ticket


class _Reporter:
    """The unit's end of the pipe."""

    def __init__(self, unit: Unit, pipe: connection.Connection, stop: Flag) -> None:
        self._unit, self._pipe, self._stop = unit, pipe, stop
        self._command, self._polled = multiprocessing.parent_process(), time.monotonic()

    def __call__(self, event: Event) -> str | None:
        """Report an event. Returns the scheduler's answer to an ``EpochDone`` of a sweep, None otherwise."""
        asks = self._unit.reports_to_scheduler and isinstance(event, EpochDone)
        self._pipe.send((self._unit, event, asks))
        answer: str | None = self._pipe.recv() if asks else None
        return answer

    def stop_requested(self) -> bool:
        """Whether the unit should save and stop: the command asks for it, or is gone."""
        now = time.monotonic()
        if now - self._polled > _COMMAND_POLL_S and self._command is not None:
            self._polled = now
            if not self._command.is_alive():
                return True
        return self._stop.is_set()


def _work(threads: int, pipe: connection.Connection, stop: Flag) -> None:
    """The function of a process: train units until the command is gone or kills it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):  # the command handles them, and asks it to stop
        signal.signal(number, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_WRONLY)  # the terminal belongs to the command's display
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)

    from melanoma_dist.train.device import warm_up

    warm_up(None)
    with suppress(EOFError, OSError):
        while True:
            unit = pipe.recv()
            pipe.send(_Ended(_error_of(unit, threads, pipe, stop)))


def _error_of(unit: Unit, threads: int, pipe: connection.Connection, stop: Flag) -> BaseException | None:
    """Train a unit. Returns the error that ends it, or None."""
    from melanoma_dist.train.device import detect, release
    from melanoma_dist.train.loop import train_unit

    reporter = _Reporter(unit, pipe, stop)
    try:
        train_unit(
            unit, detect(None, unit.config.hardware.decode_threads or threads), reporter, reporter.stop_requested
        )
    except Exception as error:
        return error
    finally:
        release(None)
    return None

"""Units of one CPU rank as plain processes, for a machine where Ray does not start."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
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


class ProcessWorkers:
    """Runs each unit in a process of its own."""

    def __init__(self, layout: Layout) -> None:
        self._layout, self._stop = layout, _SPAWN.Event()
        self._pipes: dict[SpawnProcess, connection.Connection] = {}
        self._errors: dict[SpawnProcess, BaseException] = {}
        self._waiting: dict[int, SpawnProcess] = {}  # by ticket
        self._tickets = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._pipes:
            process.kill()
            process.join(_EXIT_S)

    def capacity(self, running: int) -> int:
        """See ``Workers``."""
        return self._layout.side_by_side

    def start(self, unit: Unit) -> SpawnProcess:
        """See ``Workers``."""
        here, there = _SPAWN.Pipe()
        process = _SPAWN.Process(target=_train, args=(unit, self._layout.threads, there, self._stop))
        process.start()
        there.close()  # so that its end closes the pipe
        self._pipes[process] = here
        return process

    def wait(self, jobs: list[SpawnProcess], timeout_s: float) -> list[SpawnProcess]:
        """See ``Workers``."""
        ended = connection.wait([job.sentinel for job in jobs], timeout_s)
        return [job for job in jobs if job.sentinel in ended]

    def conclude(self, job: SpawnProcess) -> BaseException | None:
        """See ``Workers``."""
        job.join()
        self._pipes.pop(job).close()
        if job.exitcode and job not in self._errors:
            return ProcessDied(f"exit code {job.exitcode}")
        return self._errors.pop(job, None)

    def pause_s(self, error: BaseException) -> float:
        """No pause: there is no other machine to lose."""
        return 0.0

    def take_events(self) -> list[tuple[int | None, Unit, Event]]:
        """See ``Workers``."""
        return [event for process in self._pipes for event in self._take(process)]

    def answer(self, ticket: int, answer: str | None) -> None:
        """See ``Workers``."""
        self._pipes[self._waiting.pop(ticket)].send(answer)

    def request_stop(self) -> None:
        """See ``Workers``."""
        self._stop.set()

    def _take(self, process: SpawnProcess) -> list[tuple[int | None, Unit, Event]]:
        events: list[tuple[int | None, Unit, Event]] = []
        pipe = self._pipes[process]
        while pipe.poll():
            try:
                message = pipe.recv()
            except EOFError:
                break
            if isinstance(message, BaseException):
                self._errors[process] = message
                continue
            unit, event, asks = message
            events.append((self._ticket(process) if asks else None, unit, event))
        return events

    def _ticket(self, process: SpawnProcess) -> int:
        self._tickets += 1
        self._waiting[self._tickets] = process
        return self._tickets


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


def _train(unit: Unit, threads: int, pipe: connection.Connection, stop: Flag) -> None:
    """The function of a unit's process. It sends the error that ends the unit, if there is one."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):  # the command handles them, and asks it to stop
        signal.signal(number, signal.SIG_IGN)
    nowhere = os.open(os.devnull, os.O_WRONLY)  # the terminal belongs to the command's display
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)

    from melanoma_dist.train.device import detect
    from melanoma_dist.train.loop import train_unit

    reporter = _Reporter(unit, pipe, stop)
    threads = unit.config.hardware.decode_threads or threads
    try:
        train_unit(unit, detect(None, threads), reporter, reporter.stop_requested)
    except Exception as error:
        pipe.send(error)

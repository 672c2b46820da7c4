"""The processes of a command and of its cluster, recognized by their environment."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import psutil

MARK = "CHAOS_PLACE"
_AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")  # idle after a kill, and gone a minute later


def started_in(place: Path) -> list[psutil.Process]:
    """The processes whose ``MARK`` names the place, without zombies."""
    matches = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(MARK) == str(place):
                matches.append(process)
    return matches


def working(place: Path) -> list[psutil.Process]:
    """The processes in ``place`` without Ray's agents."""
    return [process for process in started_in(place) if not title(process).startswith(_AGENTS)]


def title(process: psutil.Process) -> str:
    """The command line of a process, empty if it is gone."""
    with suppress(psutil.Error):
        return " ".join(process.cmdline()).strip()
    return ""


def alive_after(seconds: float, processes: list[psutil.Process]) -> list[psutil.Process]:
    """The processes that still run after ``seconds``. Returns earlier if all exit."""
    limit = time.monotonic() + seconds
    while (
        processes := [each for each in processes if each.is_running() and runs(each.pid)]
    ) and time.monotonic() < limit:
        time.sleep(0.05)
    return processes


def runs(pid: int) -> bool:
    """Whether the process exists and is no zombie."""
    with suppress(psutil.Error):
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    return False

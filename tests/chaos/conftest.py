"""The real command under sabotage, and the run that nothing disturbed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.ray.conftest import ROOT, SMALL, environment

__all__ = ["environment"]
FLAGS = [*SMALL, "--checkpoint-every", "3"]


@dataclass
class Command:
    """A run in a folder of its own, its command given as often as a test wants."""

    place: Path
    environment: dict[str, str]
    faults: list[dict[str, Any]] = field(default_factory=list)

    @property
    def run(self) -> Path:
        return self.place / "run"

    @property
    def trace(self) -> Path:
        return self.place / "trace"

    def plan(self, at: str, call: int = 1, do: str = "kill", **more: Any) -> Path:
        """Have a fault happen once, when ``at`` is called for the n-th time in a process; the sign that it happened."""
        mark = self.place / f"fault-{len(self.faults)}"
        self.faults.append({"at": f"melanoma_dist.{at}", "call": call, "do": do, "mark": str(mark), **more})
        return mark

    def give(self, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """The command, to its end; when it has ended, none of its processes works on."""
        self.trace.mkdir(exist_ok=True)
        sabotage = os.pathsep.join([str(Path(__file__).parent / "sabotage"), os.environ.get("PYTHONPATH", "")])
        chaos = {"PYTHONPATH": sabotage, "CHAOS_FAULTS": json.dumps(self.faults), "CHAOS_TRACE": str(self.trace)}
        command = [sys.executable, str(ROOT / "launch.py"), *FLAGS, "--runs", str(self.place), "--name", "run", *flags]
        # A fault that signals the command needs its number, which a shell knows of itself.
        shell = ["sh", "-c", 'CHAOS_COMMAND=$$ exec "$@"', "sh", *command]
        inside = {**self.environment, **chaos, "CHAOS_PLACE": str(self.place), **environment}
        done = subprocess.run(shell, env=inside, capture_output=True, text=True, timeout=400)  # noqa: S603  # the test's own command
        assert psutil.wait_procs(self._working(), timeout=40)[1] == []
        return done

    def _working(self) -> list[psutil.Process]:
        """Its processes, but for Ray's idle agents, which end a minute after a kill."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("CHAOS_PLACE") == str(self.place) and "Agent" not in "".join(
                    process.cmdline()
                ):
                    found.append(process)
            except psutil.Error:
                continue
        return found


@pytest.fixture
def command(environment: dict[str, str], tmp_path: Path) -> Command:
    return Command(tmp_path, environment)


@pytest.fixture(scope="session")
def whole(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the run that nothing disturbed."""
    command = Command(tmp_path_factory.mktemp("whole"), environment)
    done = command.give()
    assert done.returncode == 0, done.stdout + done.stderr
    return command.run

"""The real command under sabotage; `finished` is an undisturbed run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.outcome import differences, leftovers, repeated_steps
from tests.chaos.processes import MARK, alive_after, working
from tests.conftest import ROOT, SMALL

EVERY = 3  # steps between checkpoints
FLAGS = [*SMALL, "--checkpoint-every", str(EVERY)]


@dataclass
class Command:
    """A run in its own folder, whose command a test can repeat."""

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
        """Plan one fault at the n-th call of ``at`` in a process. Returns the file that marks it as done."""
        mark = self.place / f"fault-{len(self.faults)}"
        self.faults.append({"at": f"melanoma_dist.{at}", "call": call, "do": do, "mark": str(mark), **more})
        return mark

    def give(self, *flags: str, program: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
        """Run the command to its end, by ``program``. Afterwards none of its processes may still work."""
        self.trace.mkdir(exist_ok=True)
        sabotage = os.pathsep.join([str(Path(__file__).parent / "sabotage"), os.environ.get("PYTHONPATH", "")])
        chaos = {"PYTHONPATH": sabotage, "CHAOS_FAULTS": json.dumps(self.faults), "CHAOS_TRACE": str(self.trace)}
        command = [sys.executable, str(ROOT / "launch.py"), *FLAGS, "--runs", str(self.place), "--name", "run", *flags]
        # A fault that signals the command, or its group, needs its number, which a shell knows of itself.
        shell = ["sh", "-c", 'CHAOS_COMMAND=$$ exec "$@"', "sh", *program, *command]
        inside = {**self.environment, **chaos, MARK: str(self.place), **environment}
        done = subprocess.run(shell, env=inside, capture_output=True, text=True, timeout=400, start_new_session=True)
        assert alive_after(40, working(self.place)) == []
        return done


def assert_same(command: Command, finished: Path, done: subprocess.CompletedProcess[str]) -> None:
    """The bytes of the undisturbed run, at most one interval repeated, no temporary files."""
    assert done.returncode == 0, done.stdout + done.stderr
    assert differences(command.run, finished) == []
    assert leftovers(command.run) == []
    assert max(repeated_steps(command.trace / "run"), default=0) <= EVERY


@pytest.fixture
def command(environment: dict[str, str], tmp_path: Path) -> Command:
    return Command(tmp_path, environment)

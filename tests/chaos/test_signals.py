"""Signals at awkward moments, and commands that must not wait: the result equals that of an undisturbed run."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from .conftest import Command, assert_same

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]
SAVED = "stopped, and every step is saved. The same command resumes:"
NOTHING = "Nothing had started yet. The same command starts again:"
KEPT = "Checkpoints are kept. The same command resumes from the last ones:"


def test_a_signal_while_something_starts_and_in_a_validation(command: Command, finished: Path) -> None:
    """Promise a: before Ray is up, while it starts, while a unit starts, in a validation, while Ray ends, in the
    finalization; to the command alone and to its whole process group, as Slurm, systemd and `timeout` send it."""
    for at, do, code, message in (
        ("run:_check_model_and_machine", "signal group 15", 143, NOTHING),
        ("distributed.cluster:_init", "signal soon 15", 143, NOTHING),
        ("train.loop:FoldTrainer._resume", "signal command 15", 75, SAVED),
        ("train.step:TrainStep.predict", "signal group 15", 75, SAVED),
        ("train.step:TrainStep.step", "signal group 10", 75, SAVED),
        ("distributed.cluster:_end", "signal command 15", 75, SAVED),
        ("evaluate.finalize:finalize", "signal command 15", 75, SAVED),
    ):
        mark = command.plan(at, do=do)
        done = command.give()
        assert mark.exists(), (at, done.stdout, done.stderr)
        assert done.returncode == code, (at, done.stdout, done.stderr)
        assert message in done.stderr, at
    assert_same(command, finished, command.give())


def test_a_second_signal_or_a_grace_of_0_stops_a_hanging_command_at_once(command: Command, finished: Path) -> None:
    """Promises a and c: by a second Ctrl-C, and by `--grace-s 0`; earlier checkpoints stay."""
    start = time.monotonic()
    command.plan("train.step:TrainStep.step", 5, do="signal command 2 2 hang", fold=0)
    twice = command.give("--grace-s", "350")
    assert twice.returncode == 130, twice.stdout + twice.stderr
    assert "a second signal stops at once" in twice.stdout
    assert time.monotonic() - start < 300
    command.plan("train.step:TrainStep.step", 2, do="signal command 15 hang", fold=0)
    without = command.give("--grace-s", "0")
    assert without.returncode == 143, without.stdout + without.stderr
    assert f"interrupted. {KEPT}" in twice.stderr
    assert f"terminated. {KEPT}" in without.stderr
    done = command.give()
    assert "resumes after" in done.stdout
    assert_same(command, finished, done)

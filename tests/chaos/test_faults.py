"""Faults at chosen moments of the real command: the result equals that of an undisturbed run."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from .conftest import Command, assert_same
from .outcome import differences, leftovers
from .processes import alive_after, started_in

pytestmark = pytest.mark.timeout(1800)  # a slow machine needs minutes for each


@pytest.mark.slow
def test_a_rank_killed_at_any_moment_of_a_training(command: Command, finished: Path) -> None:
    """Promises a, c, d: in a step, in a validation, while a checkpoint is written, at the start and at the end."""
    marks = [
        command.plan("train.loop:FoldTrainer._resume", fold=0),
        command.plan("train.step:TrainStep.step", 6, fold=0),
        command.plan("train.step:TrainStep.predict", fold=0),
        command.plan("storage.atomic:_seal", fold=1),
        command.plan("storage.atomic:_seal", 2, when="after", fold=1),
        command.plan("train.classification:ClassificationTask.write_result", fold=1),
        command.plan("train.classification:ClassificationTask.write_result", when="after", fold=0),
    ]
    done = command.give("--max-restarts", "20")
    assert [mark.exists() for mark in marks] == [True] * len(marks)
    assert_same(command, finished, done)


@pytest.mark.slow
def test_the_command_killed_within_a_step_and_between_the_last_fold_and_its_end(
    command: Command, finished: Path
) -> None:
    """Promises a, c, e: before the table, after it, before the summary too; no fold that is finished trains again."""
    command.plan("train.step:TrainStep.step", 5, do="signal command 9", fold=0)
    command.plan("evaluate.finalize:finalize")
    command.plan("evaluate.finalize:_collect", when="after")
    command.plan("evaluate.finalize:write_summary")
    for _ in range(4):
        assert command.give().returncode == -9
        assert not (command.run / "summary.json").exists()
    done = command.give()
    assert "resume: 2 of 2 folds are finished" in done.stdout
    assert_same(command, finished, done)
    assert alive_after(120, started_in(command.place)) == []


@pytest.mark.long
def test_a_signal_within_a_step_saves_and_the_next_command_resumes(command: Command, finished: Path) -> None:
    """Promise a, for SIGTERM and Ctrl-C."""
    for number, code in ((15, 75), (2, 130)):
        mark = command.plan("train.step:TrainStep.step", 2, do=f"signal command {number}", fold=0)
        left = command.give()
        assert mark.exists()
        assert left.returncode == code, left.stdout + left.stderr
        assert "stopping: folds save at their next step, within 25 s" in left.stdout
        message, resuming = left.stderr.strip().splitlines()
        assert message == "stopped, and every step is saved. The same command resumes:"
        assert "launch.py --data demo --gpus 0 --backbone test_resnet" in resuming
        assert "fold 0 saved after step" in left.stdout
    done = command.give()
    assert "resumes after" in done.stdout
    assert_same(command, finished, done)


@pytest.mark.slow
def test_a_storage_that_refuses_a_checkpoint_once(command: Command, finished: Path) -> None:
    """Promise d, for a full disk and a failing one: reported, saved later, and the same result."""
    command.plan("storage.atomic:_seal", 2, do=str(errno.ENOSPC), fold=0)
    command.plan("storage.atomic:_seal", 2, do=str(errno.EIO), fold=1)
    done = command.give()
    assert done.stdout.count("Training continues; the next attempt to save") == 2
    assert done.stdout.count("accepts files again, after 1 refusals") == 2
    assert done.returncode == 0, done.stdout + done.stderr
    # A training that ends before the wait is over leaves its result, and needs no last checkpoint any more.
    assert {*differences(command.run, finished)} <= {"fold-0 state", "fold-1 state"}
    assert leftovers(command.run) == []


@pytest.mark.long
def test_exhausted_restarts_end_with_one_message(command: Command, finished: Path) -> None:
    """Promise e: exit code 1, and the saved checkpoints stay."""
    command.plan("train.step:TrainStep.step", 5, fold=0)
    command.plan("train.step:TrainStep.step", 5, fold=0)
    first = command.give("--max-restarts", "1")
    assert first.returncode == 1
    assert first.stderr.count("error:") == 1
    assert "it was restarted 1 times (--max-restarts 1)" in first.stderr
    assert_same(command, finished, command.give())

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator

import pytest

from melanoma_dist import console, signals


@pytest.fixture(autouse=True)
def clean() -> Iterator[None]:
    signals.reset()
    yield
    signals.reset()


def test_the_message_after_a_saved_stop_has_the_command_that_resumes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["launch.py", "--data", "my data", "--gpus", "0"])
    signals.record_signal(signal.SIGINT)
    signals.mark_saved()
    text = signals.interrupt_message("", console.command())
    assert text == (
        "stopped, and every step is saved. The same command resumes:\npython launch.py --data 'my data' --gpus 0"
    )


def test_a_stop_that_saved_nothing_says_what_is_on_the_disk() -> None:
    signals.record_signal(signal.SIGTERM)
    assert signals.interrupt_message("Checkpoints stay.", "x") == "terminated. Checkpoints stay."


def test_a_batch_job_is_queued_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    signals.record_signal(signal.SIGUSR1)
    signals.mark_saved()
    assert signals.interrupt_message("", "x").splitlines()[1:] == ["x", "To queue the job again: scontrol requeue 17"]

"""Writes beside the training: one after the other, of values that no longer change, and no error is lost."""

from __future__ import annotations

import concurrent.futures
import threading
from typing import Any

import pytest
import torch

from melanoma_dist.train.background import Background, copy_to_cpu


def test_a_copy_does_not_change_with_the_training() -> None:
    weights, history = torch.ones(3), [{"epoch": 1}]
    state: dict[str, Any] = {"model": {"w": weights}, "moments": [weights, (weights, 3)], "history": history, "n": None}
    copy = copy_to_cpu(state)
    weights.add_(1)
    history.append({"epoch": 2})
    history[0]["epoch"] = 9
    expected = torch.ones(3)
    assert copy["model"]["w"].equal(expected)
    assert copy["moments"][0].equal(expected)
    assert copy["moments"][1][0].equal(expected)
    assert copy["history"] == [{"epoch": 1}]
    assert copy["n"] is None


def test_one_piece_of_work_is_done_after_the_other() -> None:
    background, go, done = Background(), threading.Event(), list[int]()

    def first() -> None:
        go.wait(10)
        done.append(1)

    background.start(first)
    assert background.busy()
    assert done == []  # the caller went on
    go.set()
    background.start(lambda: done.append(2))
    background.wait()
    assert done == [1, 2]
    assert not background.busy()
    background.close()


@pytest.mark.parametrize("ask", ["busy", "wait", "start"])
def test_an_error_reaches_the_training_once(ask: str) -> None:
    background = Background()

    def fail() -> None:
        raise OSError("no space left")

    background.start(fail)
    concurrent.futures.wait([background._job])
    questions = {"busy": background.busy, "wait": background.wait, "start": lambda: background.start(int)}
    with pytest.raises(OSError, match="no space left"):
        questions[ask]()
    background.wait()
    background.close()


def test_closing_waits_and_raises_nothing() -> None:
    background, done = Background(), list[int]()

    def fail_late() -> None:
        threading.Event().wait(0.1)
        done.append(1)
        raise OSError

    background.start(fail_late)
    background.close()
    assert done == [1]

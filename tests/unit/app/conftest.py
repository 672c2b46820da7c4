"""The finished run of the evaluation's tests, and the command as a user gives it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from melanoma_dist.data.manifest import Dataset

from ..evaluate.holdout.commands import run_on_cpu, run_on_one_thread
from ..evaluate.holdout.conftest import _threads, data, finished, run

__all__ = ["_threads", "data", "finished", "run"]

Predict = Callable[..., str]
Export = Callable[..., str]


@pytest.fixture
def predict(capfd: pytest.CaptureFixture[str]) -> Predict:
    """Run `predict` on the CPU. Returns its output; it must end with ``code``."""

    def command(*words: object, code: int = 0) -> str:
        return run_on_cpu(capfd, "predict", *words, code=code)

    return command


@pytest.fixture
def sources(data: Dataset) -> list[Path]:
    """The original files of the run's data set, in the order of its manifest."""
    return [data.folder.parent / "raw" / source for source in data.manifest["source"]]


@pytest.fixture
def export(capfd: pytest.CaptureFixture[str]) -> Export:
    """Run `export` on one thread. Returns its output; it must end with ``code``."""

    def command(*words: object, code: int = 0) -> str:
        return run_on_one_thread(capfd, "export", *words, code=code)

    return command

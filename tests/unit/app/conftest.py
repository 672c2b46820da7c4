"""The finished run of the evaluation's tests, and the command as a user gives it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from melanoma_dist.cli import main
from melanoma_dist.data.manifest import Dataset

from ..evaluate.holdout.conftest import _threads, data, finished, run

__all__ = ["_threads", "data", "finished", "run"]

Predict = Callable[..., str]


@pytest.fixture
def predict(capfd: pytest.CaptureFixture[str]) -> Predict:
    """Run `predict` on the CPU. Returns its output; it must end with ``code``."""

    def command(*words: object, code: int = 0) -> str:
        try:
            status = main(["predict", *map(str, words), "--gpus", "0", "--decode-threads", "1"])
        except SystemExit as stop:  # the parser's way
            status = int(str(stop.code))
        captured = capfd.readouterr()
        text = re.sub(r"[│\s]+", " ", captured.out + captured.err)
        assert status == code, text
        assert "Traceback" not in text
        return text

    return command


@pytest.fixture
def sources(data: Dataset) -> list[Path]:
    """The original files of the run's data set, in the order of its manifest."""
    return [data.folder.parent / "raw" / source for source in data.manifest["source"]]

"""The command as a user gives it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from melanoma_dist.artifacts.evaluation import EvaluationRecord, EvaluationResults, read_evaluation
from melanoma_dist.cli import main


def run_evaluate(capfd: pytest.CaptureFixture[str], *flags: object, code: int = 0) -> str:
    """What `evaluate` says, which must end with ``code``."""
    return run_on_cpu(capfd, "evaluate", *flags, code=code)


def run_on_cpu(capfd: pytest.CaptureFixture[str], *words: object, code: int = 0) -> str:
    """What a command on a finished run says, on one thread of the CPU. It must end with ``code``."""
    return run_on_one_thread(capfd, *words, "--gpus", 0, code=code)


def run_on_one_thread(capfd: pytest.CaptureFixture[str], *words: object, code: int = 0) -> str:
    """The same of a command that knows no GPU."""
    try:
        status = main([*map(str, words), "--decode-threads", "1"])
    except SystemExit as stop:  # the parser's way
        status = int(str(stop.code))
    captured = capfd.readouterr()
    text = re.sub(r"[│\s]+", " ", captured.out + captured.err)
    assert status == code, text
    assert "Traceback" not in text
    return text


def record(run: Path, name: str) -> EvaluationRecord:
    return read_evaluation(run / "evaluations" / name)


def results(run: Path, name: str) -> EvaluationResults:
    status = record(run, name).results
    assert status is not None
    return status

"""Sweeps by the command: their files, and commands that run beside a test."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

from tests.conftest import ROOT

SMALL = [
    *("--data", "demo", "--gpus", "0", "--backbone", "test_resnet", "--weights", "none", "--image-size", "32"),
    *("--labels", "isic2018", "--augment", "light", "--epochs", "4", "--grace-epochs", "1", "--folds", "2"),
]


def journal(sweep: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (sweep / "journal.jsonl").read_text().splitlines()]


def leaderboard(sweep: Path) -> pd.DataFrame:
    return pd.read_csv(sweep / "leaderboard.csv", index_col="configuration")


def assert_nothing_repeated(records: list[dict[str, Any]]) -> None:
    ended: set[tuple[int, int]] = set()
    epochs: set[tuple[int, int, int]] = set()
    for record in records:
        if "fold" not in record:
            continue
        unit = record["configuration"], record["fold"]
        assert unit not in ended, f"{record} after its end"
        if record["what"] == "end" and record["state"] not in ("paused", "waiting"):
            ended.add(unit)
        elif record["what"] == "epoch":
            assert (*unit, record["epoch"]) not in epochs
            epochs.add((*unit, record["epoch"]))


def epochs_of(sweep: Path) -> int:
    path = sweep / "journal.jsonl"
    return path.read_text().count('"what": "epoch"') if path.exists() else 0


def has_started_after(sweep: Path, epochs: int) -> bool:
    """Whether a unit has just started, after so many epochs: it will not leave by itself for a moment."""
    return epochs_of(sweep) >= epochs and '"start"' in (sweep / "journal.jsonl").read_text().splitlines()[-1]


@contextmanager
def started(flags: list[str], environment: dict[str, str], one_core: bool = False) -> Iterator[subprocess.Popen[str]]:
    command = [*(["taskset", "-c", "0"] if one_core else []), sys.executable, str(ROOT / "launch.py"), *flags]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        descendants = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
        process.kill()
        process.communicate()
        psutil.wait_procs(descendants, timeout=60)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 600) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < limit
        time.sleep(0.1)


def wait_until(condition: Callable[[], bool], seconds: float = 60) -> None:
    limit = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < limit
        time.sleep(0.5)

"""TensorBoard's events on a disk that refuses them."""

from __future__ import annotations

import resource
import threading
import time
from pathlib import Path

import pytest

from melanoma_dist.train.clock import Speed
from melanoma_dist.train.tensorboard import TensorBoardLogger
from melanoma_dist.train.unit import Unit

from ..samples import tiny

SPEED = Speed(images_per_s=1.0, wait_share=0.0)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_pauses_tensorboard_and_fails_nothing(tmp_path: Path) -> None:
    warnings: list[str] = []
    before = set(threading.enumerate())
    unit = Unit(tiny(), 0, "data", "fingerprint", tmp_path)
    tensorboard = TensorBoardLogger(unit, warnings.append)
    tensorboard.open(0, validated=True)
    tensorboard.step(0, 0.5, 0.1, SPEED)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))
    try:
        deadline = time.monotonic() + 60
        for step in range(1, 100_000):
            tensorboard.step(step, 0.5, 0.1, SPEED)
            if warnings or time.monotonic() > deadline:
                break
        tensorboard.close()
        for thread in set(threading.enumerate()) - before:  # the writer's, which fails aloud
            thread.join(60)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert len(warnings) == 1
    assert "TensorBoard's curves pause until the next epoch" in warnings[0]
    tensorboard.step(step, 0.5, 0.1, SPEED)
    assert len(list(unit.folder.glob("events.*"))) == 1

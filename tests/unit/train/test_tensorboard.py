"""TensorBoard's events on a disk that refuses them."""

from __future__ import annotations

import resource
import threading
import time
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from melanoma_dist.train.clock import Speed
from melanoma_dist.train.device import GpuLoad, gpu_load
from melanoma_dist.train.tensorboard import TensorBoardLogger
from melanoma_dist.train.unit import Unit

from ..samples import EPOCH, tiny

LOAD = GpuLoad(memory_gb=3.5, utilization=None)


def test_the_load_of_a_gpu_is_shown_as_far_as_it_is_known(tmp_path: Path) -> None:
    unit = Unit(tiny(), 0, "data", "fingerprint", tmp_path)
    tensorboard = TensorBoardLogger(unit)
    tensorboard.open(0, validated=True)
    tensorboard.step(1, 0.5, 0.1, SPEED, LOAD)
    tensorboard.step(2, 0.5, 0.1, SPEED, LOAD._replace(utilization=0.9))
    tensorboard.epoch(2, EPOCH, lambda writer: None)
    tensorboard.close()
    events = EventAccumulator(str(unit.folder)).Reload()
    assert [each.value for each in events.Scalars("gpu/memory_gb")] == [3.5, 3.5]
    assert [(each.step, round(each.value, 6)) for each in events.Scalars("gpu/utilization")] == [(2, 0.9)]
    assert events.Scalars("validation/loss")[0].value == pytest.approx(EPOCH.validation_loss)
    assert events.Scalars("train/gradient_norm")[0].value == pytest.approx(EPOCH.gradient_norm)


@pytest.mark.parametrize(("answer", "utilization"), [(87, 0.87), (ModuleNotFoundError("pynvml"), None)])
def test_a_gpu_whose_driver_does_not_tell_its_utilization_has_its_memory_alone(
    answer: int | Exception, utilization: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(gpu: int) -> int:
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(torch.cuda, "utilization", ask)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda gpu: 3_500_000_000)
    assert gpu_load(0) == GpuLoad(3.5, utilization)


def test_without_a_gpu_there_is_no_load() -> None:
    assert gpu_load(None) is None


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

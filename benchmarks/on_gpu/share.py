"""Several folds on one GPU, as with ``--gpus-per-unit 0.5``: images/s of all together, with and without MPS.

Without MPS, NVIDIA's Multi-Process Service, the GPU runs one process at a time and switches between them. With it, the
kernels of several processes run side by side. The service belongs to this script, and is ended after it.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess  # nosec B404  # for NVIDIA's program
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

from melanoma_dist.config.hardware import HardwareConfig
from on_gpu.learning import MAIN_BACKBONE, as_in_a_run, stepper, synthetic, train_step
from on_gpu.settings import Row, Settings
from on_gpu.speed import images_per_s

_PROGRAM = "nvidia-cuda-mps-control"
_BACKBONES = ("resnet18", MAIN_BACKBONE)
_PROCESSES = (1, 2, 3)
_START_S = 300.0
_ANSWER_S = 30.0
_SPAWN = multiprocessing.get_context("spawn")


def share(settings: Settings) -> Iterator[Row]:
    """For each backbone: one, two and three processes, without and with MPS."""
    backbones = _BACKBONES if settings.gpu is not None else _BACKBONES[:1]
    yield from _rows("", backbones, settings)
    if settings.gpu is None or shutil.which(_PROGRAM) is None:
        yield Row("with MPS: skipped", "-", f"{_PROGRAM} is not here" if settings.gpu is not None else "no GPU")
        return
    with _service():
        yield from _rows(", MPS", backbones, settings)


def _rows(suffix: str, backbones: tuple[str, ...], settings: Settings) -> Iterator[Row]:
    for backbone in backbones:
        alone = 0.0
        for count in _PROCESSES:
            speeds = _speeds(backbone, count, settings)
            alone = alone or sum(speeds)
            each = ", ".join(f"{speed:.0f}" for speed in speeds)
            remark = f"{sum(speeds) / alone:.2f} times one alone; each {each}; batch {settings.batch_size}"
            yield Row(f"{backbone}, {count} folds on one GPU{suffix}", f"{sum(speeds):.1f} images/s", remark)


def _speeds(backbone: str, count: int, settings: Settings) -> list[float]:
    """Images/s of processes that train at the same time. Raises RuntimeError if one fails."""
    barrier, answers = _SPAWN.Barrier(count), _SPAWN.Queue()
    processes = [_SPAWN.Process(target=_train, args=(backbone, settings, barrier, answers)) for _ in range(count)]
    for process in processes:
        process.start()
    try:
        results = [answers.get(timeout=_START_S + 10 * settings.seconds) for _ in processes]
    finally:
        for process in processes:
            process.join(_ANSWER_S)
            process.kill()
    if errors := [result for result in results if isinstance(result, str)]:
        raise RuntimeError(errors[0])
    return results


def _train(backbone: str, settings: Settings, barrier: Barrier, answers: Any) -> None:
    """Take steps on images that already lie on the device. Answers with images/s, or with the text of an error."""
    try:
        as_in_a_run(settings)
        batch = synthetic(settings.size(backbone), settings)
        step = stepper(train_step(backbone, settings, HardwareConfig()), lambda: batch)
        step()
        barrier.wait(_START_S)
        answers.put(images_per_s(step, settings))
    except Exception as error:
        barrier.abort()
        answers.put(f"{type(error).__name__}: {error}")


@contextmanager
def _service() -> Iterator[None]:
    """MPS in folders of its own. Processes that start in the context use it."""
    with tempfile.TemporaryDirectory() as folder:
        places = {"CUDA_MPS_PIPE_DIRECTORY": f"{folder}/pipe", "CUDA_MPS_LOG_DIRECTORY": f"{folder}/log"}
        for place in places.values():
            Path(place).mkdir()
        before = {name: os.environ.get(name) for name in places}
        os.environ.update(places)
        _control("-d")
        try:
            yield
        finally:
            _control(text="quit\n")
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})


def _control(*arguments: str, text: str = "") -> None:
    subprocess.run(  # noqa: S603  # nosec B603  # NVIDIA's program, by its full path
        [shutil.which(_PROGRAM) or _PROGRAM, *arguments], input=text, text=True, check=True, timeout=_ANSWER_S
    )

"""The cost of checkpoints: how long one stalls training, and which share of the time that is.

    python benchmarks/checkpoint.py [--backbones densenet201 inceptionresnetv2] [--rounds 5]

A checkpoint holds the weights, both moments of Adam and the state of each rank. Training waits while it is copied. Then
a thread writes, flushes, hashes and renames it, and verifies the previous one, while training continues. Each backbone
trains on synthetic batches in pairs of turns, without and with a checkpoint; their difference is the total cost.
``gpu.py`` measures the same on a GPU.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import tyro
from conditions import commit, machine, run_benchmark

from melanoma_dist import console
from melanoma_dist.config.fault_tolerance import FaultToleranceConfig
from melanoma_dist.config.model import ModelConfig
from melanoma_dist.config.run import InputConfig, RunConfig
from melanoma_dist.data.labels import LABEL_SETS
from melanoma_dist.input.loader import TrainingBatch
from melanoma_dist.models.classifier import build_classifier
from melanoma_dist.train.artifact_writer import ArtifactWriter
from melanoma_dist.train.checkpoint import Checkpoints, Cursor
from melanoma_dist.train.loss import MaskedLoss
from melanoma_dist.train.step import TrainStep
from melanoma_dist.train.unit import Unit
from melanoma_dist.world import World

_LABELS = LABEL_SETS["isic2019"]
_TURN_PER_CHECKPOINT = 1.5  # a turn is this much longer than a checkpoint, so that the thread ends within it
_IMAGES = 47_000  # per epoch: more than two of three folds of the challenges' 58,000


@dataclass(frozen=True)
class Settings:
    """Backbones and number of measurements."""

    backbones: tuple[str, ...] = ("densenet201", "inceptionresnetv2")
    """Backbones to train."""
    rounds: int = 5
    """Pairs of turns, at least 1."""
    batch_size: int = 8
    """Images per step."""
    image_size: int = 96
    """Side of the input in pixels."""


@dataclass(frozen=True)
class Cost:
    """The cost of a checkpoint of one backbone."""

    parameters: int
    size: int
    """Bytes of a checkpoint."""
    copy_s: float
    """Seconds that training waits for the copy, median."""
    disk_s: float
    """Seconds from the copy until it is on the disk, median."""
    images_per_s: tuple[float, float]
    """In turns without and with a checkpoint, medians."""
    lost_s: float
    """Extra seconds of a turn with a checkpoint, compared with the turn before it; median of the pairs."""
    epoch_s: float
    """Seconds of an epoch of ``_IMAGES`` without a checkpoint."""

    @property
    def share(self) -> float:
        """Share of the time, with the default interval and one more checkpoint at the end of each epoch."""
        interval = FaultToleranceConfig().checkpoint_interval[1] or float("inf")
        return self.lost_s * (1 / interval + 1 / self.epoch_s)


class _CheckpointedTraining:
    """Trains a backbone on one batch repeatedly, and writes checkpoints."""

    def __init__(self, backbone: str, batch_size: int, image_size: int, world: World, folder: Path) -> None:
        config = RunConfig(
            input=InputConfig(batch_size=batch_size),
            model=ModelConfig(backbone=backbone, weights="none"),
            fault_tolerance=FaultToleranceConfig(checkpoint_every="1000000"),  # only those that this benchmark writes
        )
        targets = np.tile(np.eye(len(_LABELS), dtype=np.float32), (4, 1))
        model = build_classifier(config.model, image_size, len(_LABELS), 0)
        self.train_step = TrainStep(model, MaskedLoss(config.loss, targets), config, world)
        self.train_step.begin_epoch(frozen=False)
        images = torch.randn(batch_size, 3, image_size, image_size, device=world.device)
        known = torch.eye(len(_LABELS)).repeat(-(-batch_size // len(_LABELS)), 1)[:batch_size].to(world.device)
        images = images.to(memory_format=torch.channels_last)
        self._batch = TrainingBatch(images, known, np.arange(batch_size), known.numel())
        self._gpu, self._step, self._saved = world.gpu, 0, 0
        unit = Unit(config, 0, "", "", folder)
        self.artifact_writer = ArtifactWriter(
            unit, Checkpoints(unit.folder / "checkpoints", console.info), console.info
        )

    def turn(self, steps: int, checkpoint_at: int | None = None) -> float:
        """Time some steps, with a checkpoint after one of them. Returns seconds."""
        self._wait()
        start = time.perf_counter()
        for number in range(steps):
            self.train_step.step(self._batch, self._step, 1e-4)
            self._step += 1
            if number == checkpoint_at:
                self.save()
        self._wait()
        return time.perf_counter() - start

    def save(self) -> None:
        """Write a checkpoint as training does after a step."""
        state = {"train_step": self.train_step.state_dict(), "ranks": [self.train_step.rank_state()], "history": []}
        self._saved += 1
        self.artifact_writer.save(Cursor(self._saved), state, [], keep_best=0)

    def time_checkpoint(self) -> tuple[float, float]:
        """Time a checkpoint without training beside it: seconds of the copy, and seconds from then to the disk."""
        self._wait()
        copying = _seconds(self.save)
        return copying, _seconds(self.artifact_writer.wait)

    def _wait(self) -> None:
        if self._gpu is not None:
            torch.cuda.synchronize(self._gpu)


def measure(
    backbone: str, batch_size: int, image_size: int, world: World, rounds: int, longest_s: float = 600.0
) -> Cost:
    """Measure one backbone; a turn takes at most ``longest_s``."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as place:
        training = _CheckpointedTraining(backbone, batch_size, image_size, world, Path(place))
        training.turn(5)
        copies, disks = zip(*(training.time_checkpoint() for _ in range(3)), strict=True)
        step_s = training.turn(5) / 5
        steps = max(4, round(min(_TURN_PER_CHECKPOINT * (max(copies) + max(disks)), longest_s) / step_s))
        pairs = []
        for _ in range(rounds):
            pairs.append((training.turn(steps), training.turn(steps, checkpoint_at=steps // 8)))
            training.artifact_writer.wait()
        training.artifact_writer.close()
        size = max(path.stat().st_size for path in Path(place).rglob("state.pt"))
        count = sum(parameter.numel() for parameter in training.train_step.model.parameters())
    plain, saving = (statistics.median(times) for times in zip(*pairs, strict=True))
    return Cost(
        parameters=count,
        size=size,
        copy_s=statistics.median(copies),
        disk_s=statistics.median(disks),
        images_per_s=(batch_size * steps / plain, batch_size * steps / saving),
        lost_s=statistics.median(longer - shorter for shorter, longer in pairs),
        epoch_s=_IMAGES / batch_size * plain / steps,
    )


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Measure each backbone and print a table."""
    settings = tyro.cli(Settings, description=__doc__)
    console.info(f"{machine()}; commit {commit()}\n")
    console.info("| backbone | parameters | checkpoint | copied in | then on the disk in | images/s without, with one "
        "| lost | share of the time |\n|---|---|---|---|---|---|---|---|")  # fmt: skip
    world = World(threads=torch.get_num_threads())
    for backbone in settings.backbones:
        result = measure(backbone, settings.batch_size, settings.image_size, world, settings.rounds)
        console.info(
            f"| {backbone} | {result.parameters / 1e6:.1f} M | {result.size / 1e6:.0f} MB | {result.copy_s:.2f} s "
            f"| {result.disk_s:.2f} s | {result.images_per_s[0]:.1f}, {result.images_per_s[1]:.1f} "
            f"| {result.lost_s:.2f} s | {result.share:.2%} |"
        )


if __name__ == "__main__":
    run_benchmark(main)

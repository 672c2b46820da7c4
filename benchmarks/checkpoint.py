"""What it costs to be safe: the time of a checkpoint, and training with and without checkpoints side by side.

    python benchmarks/checkpoint.py [--backbones densenet201 inceptionresnetv2] [--rounds 5]

A checkpoint holds weights, both moments of Adam and what the rank alone has; it is written, flushed, hashed and
renamed, and the one before it is hashed again. Then the first backbone trains on synthetic batches in turns, once with
a checkpoint in the middle of a turn and once without, and the difference is scaled to the default interval.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from melanoma_dist.config import HardwareConfig, ModelConfig, RunConfig
from melanoma_dist.data.labels import LABEL_SETS
from melanoma_dist.input.loader import TrainingBatch
from melanoma_dist.models.classifier import build_classifier
from melanoma_dist.train.checkpoint import Checkpoints, Cursor
from melanoma_dist.train.learner import Learner
from melanoma_dist.world import World

LABELS = LABEL_SETS["isic2019"]
STEPS = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--backbones", nargs="+", default=["densenet201", "inceptionresnetv2"])
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    interval = HardwareConfig().checkpoint_interval[1] or 0.0
    print("| backbone | parameters | checkpoint | median s | of the default interval |\n|---|---|---|---|---|")
    for backbone in arguments.backbones:
        print(_checkpoint_row(backbone, arguments.rounds, interval), flush=True)
    plain, saving = _side_by_side(arguments.backbones[0], arguments.rounds)
    print(f"\n{STEPS} steps of {arguments.backbones[0]}: {plain:.2f} s; with a checkpoint in them {saving:.2f} s")
    print(f"at one checkpoint in {interval:.0f} s: {100 * (saving - plain) / interval:.2f} % of the time")


def _checkpoint_row(backbone: str, rounds: int, interval: float) -> str:
    learner = _learner(backbone)
    learner.begin_epoch(frozen=False)
    learner.step(_batch(), 0, 1e-4)
    count = sum(parameter.numel() for parameter in learner.model.parameters())
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        checkpoints = Checkpoints(Path(folder), print)
        seconds = [_save(checkpoints, learner, number) for number in range(rounds)]
        size = max(path.stat().st_size for path in Path(folder).rglob("state.pt"))
    median = statistics.median(seconds)
    return (
        f"| {backbone} | {count / 1e6:.1f} M | {size / 1e6:.0f} MB | {median:.2f} | {100 * median / interval:.2f} % |"
    )


def _side_by_side(backbone: str, rounds: int) -> tuple[float, float]:
    """Median seconds of a turn without and with a checkpoint, taken in turns: the machine may be noisy."""
    learner, times = _learner(backbone), {False: list[float](), True: list[float]()}
    learner.begin_epoch(frozen=False)
    learner.step(_batch(), 0, 1e-4)
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        checkpoints = Checkpoints(Path(folder), print)
        for number in range(2 * rounds):
            start = time.perf_counter()
            for step in range(STEPS):
                learner.step(_batch(), step, 1e-4)
                if number % 2 and step == STEPS // 2:
                    _save(checkpoints, learner, number)
            times[bool(number % 2)].append(time.perf_counter() - start)
    return statistics.median(times[False]), statistics.median(times[True])


def _save(checkpoints: Checkpoints, learner: Learner, number: int) -> float:
    start = time.perf_counter()
    state = {"learner": learner.state_dict(), "ranks": [learner.own_state()]}
    checkpoints.save(Cursor(number), state, keep_best=0)
    return time.perf_counter() - start


def _learner(backbone: str) -> Learner:
    config = RunConfig(model=ModelConfig(backbone=backbone, weights="none"), hardware=HardwareConfig(gpus=0))
    model = build_classifier(config.model, 96, len(LABELS), 0)
    targets = np.tile(np.eye(len(LABELS), dtype=np.float32), (4, 1))
    return Learner(model, targets, config, World(threads=torch.get_num_threads()))


def _batch() -> TrainingBatch:
    targets = torch.eye(len(LABELS))[:8]
    return TrainingBatch(torch.randn(8, 3, 96, 96), targets, np.arange(8), targets.numel())


if __name__ == "__main__":
    main()

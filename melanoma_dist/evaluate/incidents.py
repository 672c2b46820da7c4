"""Incidents of a run's training, as sentences. A reader of its metrics must know them."""

from __future__ import annotations

from pathlib import Path

from melanoma_dist.artifacts.epochs import EpochRecord, read_epochs
from melanoma_dist.artifacts.run_folder import RunFolder, trainings
from melanoma_dist.config.run import RunConfig
from melanoma_dist.train.fallbacks import read_fallbacks


def incidents(config: RunConfig, folder: RunFolder) -> list[str]:
    """Of every fold of every seed: steps that were skipped, micro-batches that were halved, images left out."""
    sentences = []
    for seeded, place in trainings(config, folder):
        seed = "" if seeded.seed == config.seed else f"seed {seeded.seed} "
        for fold in range(config.data.folds):
            sentences += [f"{seed}fold {fold} {text}" for text in _of_fold(place / f"fold-{fold}", config)]
    return sentences


def _of_fold(folder: Path, config: RunConfig) -> list[str]:
    epochs = read_epochs(folder)
    return [*_skipped(epochs), *_halved(epochs, config), *_left_out(folder)]


def _skipped(epochs: list[EpochRecord]) -> list[str]:
    steps = {each.epoch: each.skipped_steps for each in epochs if each.skipped_steps}
    if not steps:
        return []
    where = ", ".join(f"{count} in epoch {epoch}" for epoch, count in steps.items())
    return [f"skipped steps whose gradient was not finite: {where}."]


def _halved(epochs: list[EpochRecord], config: RunConfig) -> list[str]:
    configured = config.optimizer.accumulate
    pieces = {each.accumulate: each.epoch for each in reversed(epochs) if each.accumulate != configured}
    return [
        f"computed each rank's share of a step in {count} micro-batches instead of {configured} from epoch {first} on, "
        "for want of memory."
        for count, first in sorted(pieces.items())
    ]


def _left_out(folder: Path) -> list[str]:
    corrupt = read_fallbacks(folder).corrupt
    return [f"did not train on {len(corrupt)} corrupt images: {', '.join(corrupt)}."] if corrupt else []

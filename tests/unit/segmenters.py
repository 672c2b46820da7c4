"""A small data set with masks and segmentation runs on it, trained in this process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from melanoma_dist.artifacts.run_folder import locate_run, open_run, trainings
from melanoma_dist.config.segment import SegmentConfig
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.data.prepare import Request, prepare
from melanoma_dist.evaluate.masks.finalize import finalize_masks
from melanoma_dist.tasks.run_task import run_task
from melanoma_dist.train.loop import train_unit
from melanoma_dist.train.unit import Unit
from melanoma_dist.world import World

from .data.conftest import Raw, write_mask

FOLDS = 2


def masked_dataset(place: Path) -> Dataset:
    """24 images, of which 16 have masks; images 10 and 11 show one lesion, and 11 has no mask."""
    raw = Raw(place / "raw")
    for number in range(24):
        raw.image_2017(number, "MEL" if number % 2 else "NV", size=(64, 48))
        if number % 3 and number != 11:
            name = f"ISIC_{number:07d}_segmentation.png"
            write_mask(raw.folder / "2017/ISIC-2017_Training_Part1_GroundTruth" / name, (64, 48))
    return prepare(Request(raw.folder, ("2017",), size=64, synthetic=True, holdout=0.2), place / "prepared")


def segmenter_run(
    runs: Path, data: Dataset, name: str = "segmenter", lr: float = 1e-3, seed: int = 0, repeats: int = 1
) -> Path:
    """A finished segmentation run of two folds, trained for an epoch."""
    default = SegmentConfig()
    config = replace(
        default,
        name=name, runs=runs, seed=seed, repeats=repeats,
        data=replace(default.data, data=str(data.folder), folds=FOLDS),
        input=replace(default.input, image_size=64, batch_size=4, tta=1),
        model=replace(default.model, backbone="test_resnet", weights="none"),
        optimizer=replace(default.optimizer, lr=lr),
        schedule=replace(default.schedule, epochs=1),
        hardware=replace(default.hardware, gpus=0),
    )  # fmt: skip
    folds = run_task(config).make_folds(data.manifest, config)
    folder = locate_run(config, data)
    open_run(folder, config, folds)
    for seeded, place in trainings(config, folder):
        for fold in range(FOLDS):
            train_unit(Unit(seeded, fold, str(data.folder), data.fingerprint, place), World(), lambda event: None)
    finalize_masks(config, data, folds, folder, 1.0)
    return folder.path

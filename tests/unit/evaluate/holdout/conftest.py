"""A run trained in this process, without Ray, on a small data set that keeps a quarter of its lesions out."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from melanoma_dist.artifacts.run_folder import locate_run, open_run
from melanoma_dist.config.run import RunConfig
from melanoma_dist.data.demo import open_dataset
from melanoma_dist.data.folds import make_folds
from melanoma_dist.data.labels import DIAGNOSES
from melanoma_dist.data.lesion import draw_lesion, photograph
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.data.prepare import Request, prepare
from melanoma_dist.evaluate.finalize import finalize
from melanoma_dist.train.device import configure_device
from melanoma_dist.train.loop import train_unit
from melanoma_dist.train.unit import Unit
from melanoma_dist.world import World

from ...data.conftest import Raw
from ...samples import tiny

FOLDS = 2
_THREADS = torch.get_num_threads()
PHOTOGRAPHED = range(0, 12)
"""Images with details, by which copies are recognised."""


def write_photograph(raw: Raw, number: int, like: int | None = None, quality: int = 95) -> None:
    """Put a drawn lesion in the place of an image: that of another number with ``like``."""
    rng = np.random.default_rng([7, number if like is None else like])
    picture = Image.fromarray(photograph(rng, draw_lesion(rng, "NV")))
    picture.save(raw.folder / f"2019/ISIC_2019_Training_Input/ISIC_{number:07d}.jpg", quality=quality)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """72 images of the labels of 2019; every tenth lesion has a second photograph."""
    place = tmp_path_factory.mktemp("data")
    raw = Raw(place / "raw")
    for number in range(72):
        label = "MEL" if number % 3 == 0 else DIAGNOSES[1 + number % 7]
        lesion = number - 10 if number % 10 == 9 and label != "MEL" and number > 10 else number
        raw.image_2019(number, label, lesion=f"LESION_{lesion:04d}", size=(64, 48))
    for number in PHOTOGRAPHED:
        write_photograph(raw, number)
    return prepare(Request(raw.folder, ("2019",), size=64, synthetic=True, holdout=0.3), place / "prepared")


def trained(
    folder: Path, data: Dataset, name: str = "first", seed: int = 0, image_size: int = 32, **values: Any
) -> Path:
    """A finished run of two folds in ``folder``."""
    chosen = {
        "backbone": "test_resnet",
        "head_norm": "batch",
        "epochs": 1,
        "batch_size": 9,
        "optimizer": "adam",
        "lr": 1e-2,
    }
    config: RunConfig = tiny(
        **{**chosen, **values},
        folds=FOLDS,
        data=str(data.folder),
        runs=folder,
        name=name,
        seed=seed,
        image_size=image_size,
    )
    folds = make_folds(data.manifest, config.data.label_set(), FOLDS, config.seed)
    run = locate_run(config, data)
    open_run(run, config, folds)
    configure_device(None, threads=1)  # as a rank does; how often sums are split decides their last bits
    for fold in range(FOLDS):
        train_unit(Unit(config, fold, str(data.folder), data.fingerprint, run.path), World(), lambda event: None)
    finalize(config, open_dataset(str(data.folder)), folds, run, 1.0)
    return run.path


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, data: Dataset) -> Path:
    """The folder of a finished run. It belongs to all tests."""
    return trained(tmp_path_factory.mktemp("runs"), data)


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run, alone in its folder of runs."""
    return Path(shutil.copytree(finished, tmp_path / "runs" / "first"))


@pytest.fixture(scope="session")
def other_data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Other lesions, in the layout of 2017: known are melanoma and seborrheic keratosis, none of the latter."""
    place = tmp_path_factory.mktemp("other")
    raw = Raw(place / "raw")
    for number in range(200, 224):
        raw.image_2017(number, "MEL" if number % 2 else "NV", size=(64, 48))
    return prepare(Request(raw.folder, ("2017",), size=64, synthetic=True), place / "elsewhere")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    yield
    torch.set_num_threads(_THREADS)

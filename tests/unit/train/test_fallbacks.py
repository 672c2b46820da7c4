"""Out of memory, corrupt images: a fallback is written to the unit's folder and holds for the rest of the unit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from melanoma_dist.config.model import HeadNorm
from melanoma_dist.config.run import RunConfig
from melanoma_dist.data.folds import make_folds
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.errors import CorruptImages, DataError, MelanomaDistError, OutOfMemory, TrainingError
from melanoma_dist.models.classifier import Classifier
from melanoma_dist.train.events import Event, Note
from melanoma_dist.train.fallbacks import Fallbacks, fall_back, read_fallbacks
from melanoma_dist.train.fold_data import evaluation_batch, validation_batch
from melanoma_dist.train.loop import train_unit
from melanoma_dist.train.unit import Unit
from melanoma_dist.world import World

from ..samples import small_dataset, tiny

FOLD = 0
Events = list[Event]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return small_dataset(tmp_path_factory.mktemp("data"))


def unit_in(folder: Path, dataset: Dataset, config: RunConfig) -> Unit:
    folder.mkdir()
    folds = make_folds(dataset.manifest, config.data.label_set(), config.data.folds, config.seed)
    folds.to_parquet(folder / "folds.parquet")
    return Unit(config, FOLD, str(dataset.folder), dataset.fingerprint, folder)


def small_config(**values: Any) -> RunConfig:
    return tiny(**{"labels": "melanoma", "folds": 3, "epochs": 2, "batch_size": 8, **values})


def train_as_the_command_does(unit: Unit) -> tuple[list[str], Events]:
    """Train, and restart after every fallback. Returns the descriptions of the fallbacks, and all events."""
    fallbacks, events = [], Events()
    while True:
        try:
            train_unit(unit, World(), events.append)
            return fallbacks, events
        except MelanomaDistError as error:
            why = fall_back(error, unit)
            if why is None:
                raise
            fallbacks.append(why)


def records(unit: Unit) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (unit.folder / "metrics.jsonl").read_text().splitlines()]


@contextmanager
def memory_for(images: int) -> Iterator[list[int]]:
    """Simulate a device with memory for ``images`` at once; yields the sizes of the batches that it gets."""
    forward, batches = Classifier.forward, []

    def limited(model: Classifier, batch: torch.Tensor) -> torch.Tensor:
        batches.append(len(batch))
        if len(batch) > images:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return forward(model, batch)

    Classifier.forward = limited  # type: ignore[method-assign]
    try:
        yield batches
    finally:
        Classifier.forward = forward  # type: ignore[method-assign]


def test_the_micro_batch_is_halved_until_it_fits_and_the_batch_stays(dataset: Dataset, tmp_path: Path) -> None:
    unit = unit_in(tmp_path / "halved", dataset, small_config())
    configured = unit_in(tmp_path / "configured", dataset, small_config(accumulate=4))
    with memory_for(2) as batches:
        fallbacks, events = train_as_the_command_does(unit)
    assert [why.rpartition("into ")[2] for why in fallbacks] == [
        "2 micro-batches, for want of memory",
        "4 micro-batches, for want of memory",
    ]
    assert batches[:3] == [8, 4, 2]
    assert Note(FOLD, "splits each rank's batch into 4 micro-batches, for want of memory") in events
    assert [record["accumulate"] for record in records(unit)] == [4, 4]
    train_unit(configured, World(), lambda event: None)
    assert unit.predictions.read_bytes() == configured.predictions.read_bytes()
    assert unit.model.read_bytes() == configured.model.read_bytes()


def test_the_micro_batch_is_halved_in_the_middle_of_a_training_too(dataset: Dataset, tmp_path: Path) -> None:
    unit = unit_in(tmp_path / "run", dataset, small_config(checkpoint_every="1"))
    step = Classifier.forward
    calls = 0

    def once(model: Classifier, batch: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise RuntimeError("Error in DALI: CUDA runtime: out of memory")
        return step(model, batch)

    Classifier.forward = once  # type: ignore[method-assign]
    try:
        fallbacks, events = train_as_the_command_does(unit)
    finally:
        Classifier.forward = step  # type: ignore[method-assign]
    assert len(fallbacks) == 1
    assert any(isinstance(event, Note) and event.text.startswith("resumes after step 2") for event in events)
    assert [record["epoch"] for record in records(unit)] == [1, 2]


@pytest.mark.parametrize(("head_norm", "batch", "pieces", "message"), [
    ("none", 8, 8, "with 1 image at once"),
    ("batch", 8, 4, "with 2 images at once"),  # of one image, the head has no batch statistics
    ("batch", 7, 3, "with 3 images at once"),
])  # fmt: skip
def test_a_device_too_small_for_the_smallest_micro_batch_ends_the_fold(
    head_norm: HeadNorm, batch: int, pieces: int, message: str, dataset: Dataset, tmp_path: Path
) -> None:
    unit = unit_in(tmp_path / "run", dataset, small_config(head_norm=head_norm, batch_size=batch))
    with memory_for(0), pytest.raises(TrainingError, match=rf"{message} .*--accumulate {pieces}.*nothing is left"):
        train_as_the_command_does(unit)
    assert read_fallbacks(unit.folder).accumulate == pieces


def test_configured_micro_batches_hold_at_least_two_images(dataset: Dataset, tmp_path: Path) -> None:
    unit = unit_in(tmp_path / "run", dataset, small_config(head_norm="batch", accumulate=7))
    with memory_for(8) as batches:
        train_as_the_command_does(unit)
    assert batches[:4] == [2, 2, 2, 2]


def test_evaluation_batches_are_no_larger_than_micro_batches() -> None:
    assert evaluation_batch(small_config()) == 8
    assert evaluation_batch(small_config(accumulate=3)) == 3
    assert evaluation_batch(tiny(batch_size=512)) == evaluation_batch(tiny(batch_size=512, accumulate=8)) == 64
    assert evaluation_batch(tiny(batch_size=512, accumulate=16)) == 32


def test_validation_batches_are_larger_on_a_gpu_only() -> None:
    for values in ({}, {"accumulate": 3}):
        assert validation_batch(small_config(**values), World()) == evaluation_batch(small_config(**values))
    gpu = World(gpu=0)
    assert validation_batch(small_config(), gpu) == 32
    assert validation_batch(small_config(accumulate=3), gpu) == 12  # after out-of-memory, as micro-batches
    assert validation_batch(tiny(batch_size=512), gpu) == 256


def corrupt_copy(dataset: Dataset, folder: Path, image_ids: list[str]) -> Dataset:
    """Copy the data set and corrupt some images."""
    shutil.copytree(dataset.folder, folder)
    about = dataset.manifest.set_index("image_id")
    for name in image_ids:
        place = about.loc[name]
        with (folder / place["shard"]).open("r+b") as file:
            file.seek(int(place["offset"]) + int(place["length"]) // 2)
            file.write(bytes(40))
    return replace(dataset, folder=folder)


def image_ids(unit: Unit, validation: bool, count: int) -> list[str]:
    folds = pd.read_parquet(unit.run / "folds.parquet")
    return sorted(folds.loc[(folds["fold"] == FOLD) == validation, "image_id"])[:count]


def test_corrupt_images_are_named_and_excluded_from_training(dataset: Dataset, tmp_path: Path) -> None:
    config = small_config(augment="none", class_weights="balanced")
    names = image_ids(unit_in(tmp_path / "folds", dataset, config), validation=False, count=3)
    unit = unit_in(tmp_path / "run", corrupt_copy(dataset, tmp_path / "data", names), config)
    fallbacks, events = train_as_the_command_does(unit)
    text = f"does not train on 3 corrupt images: {', '.join(names)}"
    assert fallbacks == [f"resumes from its last checkpoint, and {text}"]
    assert Note(FOLD, text) in events
    assert [record["corrupt_images"] for record in records(unit)] == [3, 3]
    validated = image_ids(unit, validation=True, count=1000)
    assert sorted(pd.read_parquet(unit.predictions)["image_id"]) == validated


def test_more_corrupt_images_than_allowed_end_the_fold(dataset: Dataset, tmp_path: Path) -> None:
    config = small_config(max_corrupt_images=2)
    names = image_ids(unit_in(tmp_path / "folds", dataset, config), validation=False, count=3)
    unit = unit_in(tmp_path / "run", corrupt_copy(dataset, tmp_path / "data", names), config)
    with pytest.raises(CorruptImages, match=f"3 prepared images .*{', '.join(names)}.*--max-corrupt-images") as caught:
        train_as_the_command_does(unit)
    assert caught.value.image_ids == tuple(names)
    assert read_fallbacks(unit.folder) == Fallbacks()


def test_a_corrupt_validation_image_ends_the_fold(dataset: Dataset, tmp_path: Path) -> None:
    config = small_config()
    names = image_ids(unit_in(tmp_path / "folds", dataset, config), validation=True, count=1)
    unit = unit_in(tmp_path / "run", corrupt_copy(dataset, tmp_path / "data", names), config)
    with pytest.raises(DataError, match=f"{names[0]}.*Cannot score unreadable images"):
        train_as_the_command_does(unit)


@pytest.mark.parametrize(
    "content", ["", "[]", "{}", '{"accumulate": -1, "corrupt": []}', '{"accumulate": 9999, "corrupt": []}', "\0"]
)
def test_a_corrupt_fallbacks_file_is_refused(content: str, dataset: Dataset, tmp_path: Path) -> None:
    unit = unit_in(tmp_path / "run", dataset, small_config())
    unit.folder.mkdir()
    (unit.folder / "fallbacks.json").write_text(content)
    with pytest.raises(TrainingError, match=r"fallbacks\.json: "):
        read_fallbacks(unit.folder)


@pytest.mark.parametrize("error", [TrainingError("NaN"), DataError("missing"), RuntimeError("a rank died")], ids=repr)
def test_other_errors_have_no_fallback(error: Exception, dataset: Dataset, tmp_path: Path) -> None:
    assert fall_back(error, unit_in(tmp_path / "run", dataset, small_config())) is None


def test_fallbacks_add_up(dataset: Dataset, tmp_path: Path) -> None:
    unit = unit_in(tmp_path / "run", dataset, small_config(accumulate=3))
    unit.folder.mkdir()
    for error in (
        OutOfMemory("full", 6),
        CorruptImages("b", ("b",)),
        OutOfMemory("full", 12),
        CorruptImages("a", ("a", "b")),
    ):
        assert fall_back(error, unit)
    fallbacks = read_fallbacks(unit.folder)
    assert fallbacks == Fallbacks(12, ("a", "b"))
    assert fallbacks.apply(unit).config.optimizer.accumulate == 12
    assert np.all([part in " ".join(fallbacks.describe()) for part in ("12 micro-batches", "2 corrupt images: a, b")])

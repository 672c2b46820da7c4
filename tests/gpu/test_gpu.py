"""What only a GPU can show; skipped without one. benchmarks/gpu.py measures the same things."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from melanoma_dist import nvjpeg
from melanoma_dist.artifacts.epochs import read_epochs
from melanoma_dist.data.folds import make_folds
from melanoma_dist.data.labels import LABEL_SETS
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.input.gpu_decoder import gpu_decoder
from melanoma_dist.input.loader import EvaluationLoader, TrainingLoader
from melanoma_dist.train.device import gpu_load
from melanoma_dist.train.loop import train_unit
from melanoma_dist.train.unit import Unit
from melanoma_dist.world import World
from tests.unit import samples

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")
LEVEL = 1 / 255 / min(samples.FRAME.std)  # one grey level after normalisation


def test_mixed_decoding_gives_the_pixels_of_the_cpu(tmp_path: Path) -> None:
    chosen = samples.all_samples(samples.small_dataset(tmp_path))
    loaders = [EvaluationLoader(chosen, samples.FRAME, 8, world) for world in (World(), World(gpu=0))]
    for (cpu, _), (gpu, _) in zip(*loaders, strict=True):
        assert gpu.is_cuda
        assert (cpu - gpu.cpu()).abs().max() < 3 * LEVEL


def test_augmentation_on_the_gpu_is_that_of_the_cpu(tmp_path: Path) -> None:
    chosen = samples.all_samples(samples.small_dataset(tmp_path))
    loaders = [
        TrainingLoader(chosen, samples.FRAME, 8, "dermoscopy", False, 0, world) for world in (World(), World(gpu=0))
    ]
    for cpu, gpu in zip(*(loader.epoch(0) for loader in loaders), strict=True):
        assert np.array_equal(cpu.samples, gpu.samples)
        assert (cpu.images - gpu.images.cpu()).abs().mean() < LEVEL


def test_the_decoder_in_use_is_known_and_it_is_the_gpus() -> None:
    decoder = gpu_decoder(0)
    assert decoder.name not in ("unknown", "the CPU"), decoder.describe()
    assert nvjpeg.version() is not None
    assert nvjpeg.version() >= (13, 2)


def test_the_next_batch_does_not_wait_for_the_gpu(tmp_path: Path) -> None:
    chosen = samples.all_samples(samples.small_dataset(tmp_path))
    batches = TrainingLoader(chosen, samples.FRAME, 8, "light", False, 0, World(gpu=0)).epoch(0)
    next(batches)
    torch.cuda.synchronize()
    torch.cuda._sleep(2_000_000_000)  # about a second
    next(batches)
    assert not torch.cuda.current_stream().query(), "the batch came only when the GPU had finished"
    torch.cuda.synchronize()


def trained_on_gpu(dataset: Dataset, run: Path, **values: Any) -> Unit:
    """A fold of a small run, trained to its end."""
    run.mkdir()
    make_folds(dataset.manifest, LABEL_SETS["melanoma"], 2, 0).to_parquet(run / "folds.parquet")
    config = samples.config(
        backbone="test_resnet", weights="none", image_size=64, labels="melanoma", batch_size=8, folds=2, **values
    )
    unit = Unit(config, 0, str(dataset.folder), dataset.fingerprint, run)
    train_unit(unit, World(gpu=0, threads=2), lambda event: None)
    return unit


def test_a_unit_trains_on_a_gpu_twice_alike(tmp_path: Path) -> None:
    dataset = samples.small_dataset(tmp_path)
    one, two = (trained_on_gpu(dataset, tmp_path / name, epochs=2) for name in ("one", "two"))
    pd.testing.assert_frame_equal(pd.read_parquet(one.predictions), pd.read_parquet(two.predictions), check_exact=True)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_unit_that_replays_its_steps_has_the_bytes_of_one_that_computes_them(optimizer: str, tmp_path: Path) -> None:
    dataset = samples.small_dataset(tmp_path)
    tables = []
    for choice in ("on", "off"):
        changes = {"epochs": 3, "freeze_epochs": 1, "ema_decay": 0.9, "optimizer": optimizer, "cuda_graph": choice}
        unit = trained_on_gpu(dataset, tmp_path / choice, **changes)
        tables.append((unit.predictions.read_bytes(), unit.model.read_bytes()))
        assert {epoch.cuda_graph for epoch in read_epochs(unit.folder)} == {choice == "on"}
    assert tables[0] == tables[1]


def test_the_load_of_the_gpu_is_measured() -> None:
    torch.ones(1000, device="cuda")
    load = gpu_load(0)
    assert load is not None
    assert load.memory_gb > 0
    assert load.utilization is None or 0 <= load.utilization <= 1

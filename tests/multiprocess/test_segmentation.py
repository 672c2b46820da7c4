"""Whole units of a segmenter: to their end, and killed again and again, on one rank and on two."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image, ImageDraw

from melanoma_dist.artifacts.run_folder import RunFolder, identity_of, open_run
from melanoma_dist.config.segment import (
    EncoderConfig,
    MaskDataConfig,
    MaskInputConfig,
    MaskOptimizerConfig,
    MaskScheduleConfig,
    SegmentConfig,
)
from melanoma_dist.data.folds import make_mask_folds
from melanoma_dist.data.manifest import Dataset, load_dataset
from melanoma_dist.data.prepare import Request, prepare
from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.inference.images import Images
from melanoma_dist.inference.segmenter import open_segmenter
from melanoma_dist.inference.trained_run import open_trained_run
from melanoma_dist.metrics.segmentation import score_mask
from melanoma_dist.run import open_data, plan_folds
from melanoma_dist.tasks.segmentation import SegmentationRuns
from melanoma_dist.train.events import EpochDone, UnitDone
from melanoma_dist.train.mask_predict import mask_at
from melanoma_dist.train.unit import Unit
from melanoma_dist.world import World

from . import jobs
from .harness import on_ranks
from .test_units import assert_same

COUNT = 30


def write_lesion(folder: Path, number: int) -> None:
    """A dark ellipse on skin, with its mask."""
    rng = np.random.default_rng(number)
    width, height = ((64, 48), (48, 64), (60, 60))[number % 3]
    x, y = rng.uniform(0.3, 0.7) * width, rng.uniform(0.3, 0.7) * height
    a, b = rng.uniform(0.15, 0.3, 2) * min(width, height)
    box = (x - a, y - b, x + a, y + b)
    pixels = rng.normal((225, 180, 160), 8, (height, width, 3)).clip(0, 255).astype(np.uint8)
    image, mask = Image.fromarray(pixels), Image.new("L", (width, height))
    ImageDraw.Draw(image).ellipse(box, fill=(90, 60, 50))
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    images, masks = folder / "2018/ISIC2018_Task1-2_Training_Input", folder / "2018/ISIC2018_Task1_Training_GroundTruth"
    images.mkdir(parents=True, exist_ok=True)
    masks.mkdir(parents=True, exist_ok=True)
    image.save(images / f"ISIC_{number:07d}.jpg", quality=95)
    mask.save(masks / f"ISIC_{number:07d}_segmentation.png")


@pytest.fixture(scope="module")
def masked(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    folder = tmp_path_factory.mktemp("masked")
    for number in range(COUNT):
        write_lesion(folder / "raw", number)
    return prepare(Request(folder / "raw", ("2018",), size=64, synthetic=True), folder / "prepared")


def configured(dataset: Dataset, runs: Path, every: str = "10m", ranks: int = 1) -> SegmentConfig:
    config = SegmentConfig(
        runs=runs,
        data=MaskDataConfig(str(dataset.folder), folds=2),
        input=MaskInputConfig(image_size=64, batch_size=5, tta=2),
        model=EncoderConfig("test_resnet", weights="none"),
        optimizer=MaskOptimizerConfig(lr=3e-3, ema_decay=0.5),
        schedule=MaskScheduleConfig(epochs=2),
    )
    hardware = replace(config.hardware, gpus=0, ranks_per_unit=ranks)
    return replace(config, hardware=hardware, fault_tolerance=replace(config.fault_tolerance, checkpoint_every=every))


def unit_in(folder: Path, dataset: Dataset, fold: int = 1, every: str = "10m", ranks: int = 1) -> Unit:
    folder.mkdir(exist_ok=True)
    make_mask_folds(dataset.manifest, 2, 0).to_parquet(folder / "folds.parquet")
    config = configured(dataset, folder.parent, every, ranks)
    return Unit(config, fold, str(dataset.folder), dataset.fingerprint, folder)


@pytest.mark.parametrize(("ranks", "every", "stops"), [(1, "1", (0, 2, 4)), (2, "2", (3, 4))])
def test_a_killed_segmenter_ends_as_one_that_never_was(
    ranks: int, every: str, stops: tuple[int, ...], masked: Dataset, tmp_path: Path
) -> None:
    whole, killed = (unit_in(tmp_path / name, masked, 1, every, ranks) for name in ("whole", "killed"))
    on_ranks(ranks, jobs.whole_unit, whole)
    for stop in stops:
        ends = on_ranks(ranks, jobs.whole_unit, killed, stop)
        assert [type(each) for each in ends] == [jobs.Stopped] * ranks
        assert not killed.predictions.exists()
    events, *_ = on_ranks(ranks, jobs.whole_unit, killed)
    assert isinstance(events[-1], UnitDone)
    assert_same(killed, whole)


def test_one_rank_and_two_score_the_same_images(masked: Dataset, tmp_path: Path) -> None:
    """Batch statistics differ between ranks, so the masks do; every image is scored once."""
    one, two = (unit_in(tmp_path / str(ranks), masked, ranks=ranks) for ranks in (1, 2))
    for ranks, unit in ((1, one), (2, two)):
        on_ranks(ranks, jobs.whole_unit, unit)
    tables = [pd.read_parquet(unit.predictions) for unit in (one, two)]
    assert tables[0]["image_id"].to_list() == tables[1]["image_id"].to_list()


@pytest.fixture(scope="module")
def run(masked: Dataset, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A finished run of two folds, without Ray."""
    config = configured(masked, tmp_path_factory.mktemp("runs"))
    dataset = open_data(config)
    folds = plan_folds(config, dataset)
    folder = RunFolder(config.runs / "run", identity_of(config, dataset))
    open_run(folder, config, folds)
    for fold in range(2):
        events = jobs.whole_unit(World(), Unit(config, fold, str(masked.folder), masked.fingerprint, folder.path))
        assert [event.score_name for event in events if isinstance(event, EpochDone)] == ["Jaccard"] * 2
    SegmentationRuns().finalize(config, dataset, folds, folder, 1.0)
    return folder


def test_a_run_scores_every_mask_out_of_fold(run: RunFolder, masked: Dataset) -> None:
    table = pd.read_parquet(run.predictions)
    assert sorted(table["image_id"]) == sorted(masked.manifest["image_id"])
    assert table["jaccard"].between(0, 1).all()
    summary = SegmentationRuns().read_summary(run)
    score = summary.out_of_fold["jaccard"]
    assert score.estimate == pytest.approx(table["jaccard"].mean())  # type: ignore[union-attr]
    assert summary.out_of_fold["failures"].estimate == pytest.approx((table["jaccard"] < 0.65).mean())  # type: ignore[union-attr]
    assert set(summary.folds) == {0, 1}
    SegmentationRuns().show(summary, run)


def test_an_opened_run_draws_the_masks_that_were_scored(run: RunFolder, masked: Dataset) -> None:
    segmenter = open_segmenter(run.path)
    table = pd.read_parquet(run.predictions).set_index("image_id")
    assert set(segmenter.fold_of) == set(masked.manifest["group"])
    for fold in range(2):
        rows = np.flatnonzero(masked.manifest["image_id"].map(table["fold"]) == fold)
        chosen = np.isin(np.arange(len(masked.manifest)), rows)
        images = Images.of(load_dataset(masked.folder), chosen)
        for batch, place in segmenter.loader(images):
            probabilities = segmenter.probabilities(batch, fold)
            assert probabilities.shape == (len(batch), 64, 64)
            for position, sample in enumerate(place.samples[: place.count]):
                row = int(images.rows[sample])
                truth = np.asarray(Image.open(mask_file(masked, row))) > 0
                score = score_mask(truth, mask_at(probabilities[position], *truth.shape, segmenter.threshold))
                assert score.jaccard == pytest.approx(table.loc[masked.manifest["image_id"].iloc[row], "jaccard"])
    both = segmenter.probabilities(batch)
    alone = torch.stack([segmenter.probabilities(batch, fold) for fold in range(2)])
    assert torch.allclose(both, alone.mean(0), atol=1e-6)


def mask_file(dataset: Dataset, row: int) -> Path:
    name = dataset.manifest["image_id"].iloc[row]
    return dataset.folder.parent / f"raw/2018/ISIC2018_Task1_Training_GroundTruth/{name}_segmentation.png"


def test_commands_of_classifiers_refuse_a_segmenter(run: RunFolder) -> None:
    with pytest.raises(ConfigError, match="is a run of `segment`"):
        open_trained_run(run.path)


def test_a_data_set_without_masks_is_refused(data: Path, tmp_path: Path) -> None:
    dataset = load_dataset(data)
    with pytest.raises(DataError, match=r"none of its \d+ images has a lesion mask.*data prepare --years 2018"):
        open_data(configured(dataset, tmp_path))


def test_a_corrupt_image_is_left_out_with_its_mask(masked: Dataset, tmp_path: Path) -> None:
    """Its mask is unknown: it changes neither the loss nor the number that the loss is divided by."""
    from melanoma_dist.train.segmentation import SegmentationTask

    unit = unit_in(tmp_path / "run", masked)
    sound = SegmentationTask(unit, World(), lambda event: None)
    corrupt = str(masked.manifest["image_id"].iloc[int(sound._data.training.rows[0])])
    task = SegmentationTask(unit, World(), lambda event: None, [corrupt])
    batches = list(task.batches(0, 0))
    hit = [batch for batch in batches if 0 in batch.samples]
    assert hit
    for batch in hit:
        where = np.flatnonzero(batch.samples == 0)
        assert batch.targets[where].isnan().all()
        assert batch.known == len(batch.samples) - len(where)
        loss = task.build_loss().of_images(torch.zeros_like(batch.targets), batch.targets)
        assert loss[where].eq(0).all()
        assert loss.isfinite().all()

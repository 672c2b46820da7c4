"""A model with metadata: it starts as the image alone, learns, answers without, and resumes and replays to the bit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from melanoma_dist.artifacts.predictions import WITHOUT_METADATA
from melanoma_dist.artifacts.run_folder import locate_run, open_run
from melanoma_dist.config.run import RunConfig
from melanoma_dist.data.demo import open_dataset
from melanoma_dist.data.folds import make_folds
from melanoma_dist.data.labels import LABEL_SETS
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.input import stream
from melanoma_dist.input.loader import EvaluationLoader, TrainingBatch, TrainingLoader
from melanoma_dist.models.classifier import Classifier, build_classifier
from melanoma_dist.train.device import configure_device
from melanoma_dist.train.loop import train_unit
from melanoma_dist.train.loss import MaskedLoss
from melanoma_dist.train.step import TrainStep
from melanoma_dist.train.unit import Unit
from melanoma_dist.world import World

from ..samples import FRAME, all_samples, tiny
from .recorders import TapeRecorder
from .test_step import IMAGES, TARGETS, batch

FUSIONS = ("concat", "metablock")
RNG = np.random.default_rng(1)
CODES = np.stack(
    [RNG.integers(0, 90, 40), RNG.integers(0, 2, 40), RNG.integers(0, 8, 40)], axis=1
).astype(np.float32)  # fmt: skip
CODES[RNG.random(CODES.shape) < 0.2] = np.nan
KNOWN, UNKNOWN = torch.from_numpy(CODES), torch.full((40, 3), torch.nan)


def fused(fusion: str = "concat", **values: Any) -> RunConfig:
    chosen = {"backbone": "test_resnet", "head_norm": "batch", "dropout": 0.3, **values}
    return tiny(metadata="age,sex,site", fusion=fusion, **chosen)


def build(config: RunConfig) -> Classifier:
    return build_classifier(config.model, 32, 8, config.seed)


def informed(number: int) -> TrainingBatch:
    plain = batch(number)
    return replace(plain, metadata=KNOWN[plain.samples])


def trained(config: RunConfig, steps: int = 3, recorder: TapeRecorder | None = None) -> TrainStep:
    step = TrainStep(build(config), MaskedLoss(config.loss, TARGETS), config, World(), recorder=recorder)
    step.begin_epoch(frozen=False)
    for number in range(steps):
        step.step(informed(number), number, 0.01)
    return step


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_at_step_0_a_model_is_that_of_the_image_alone_to_the_bit(fusion: str, training: bool) -> None:
    config = fused(fusion)
    alone = build(tiny(backbone="test_resnet", head_norm="batch", dropout=0.3)).train(training)
    both = build(config).train(training)
    for metadata in (KNOWN, UNKNOWN, None):
        logits = []
        for model, inputs in ((alone, (IMAGES,)), (both, (IMAGES, metadata))):
            torch.manual_seed(3)  # of dropout
            logits.append(model(*inputs))
        assert torch.equal(*logits)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_parameter_of_the_branch_learns(fusion: str) -> None:
    model = trained(fused(fusion, optimizer="adam")).model  # whose steps are large also where gradients still are small
    first = build(fused(fusion)).state_dict()
    names = [name for name in first if name.startswith(("metadata.", "beside.", "gate."))]
    assert len(names) > 8
    for name in names:
        assert not torch.equal(first[name], model.state_dict()[name]), name


@pytest.mark.parametrize("fusion", FUSIONS)
def test_blanked_metadata_are_absent_ones_and_known_ones_count(fusion: str) -> None:
    model = trained(fused(fusion)).model.eval()
    with torch.inference_mode():
        assert torch.equal(model(IMAGES, UNKNOWN), model(IMAGES))
        assert not torch.equal(model(IMAGES, KNOWN), model(IMAGES))
        assert torch.isfinite(model(IMAGES, KNOWN)).all()
        assert torch.equal(model.features(IMAGES), model.with_features(IMAGES, KNOWN)[1])  # features are of the image


def test_an_unknown_age_is_no_age() -> None:
    model = trained(fused()).model.eval()
    with torch.inference_mode():
        codes = torch.tensor([[torch.nan, 0.0, 3.0], *([age, 0.0, 3.0] for age in range(0, 121, 5))])
        answers = model.metadata(codes)
    assert not (answers[0] == answers[1:]).all(dim=1).any()


@pytest.mark.parametrize("fusion", FUSIONS)
def test_replayed_steps_have_the_bits_of_computed_ones(fusion: str) -> None:
    config = fused(fusion, optimizer="adam", accumulate=2)
    replayed, plain = trained(config, 4, TapeRecorder()), trained(config, 4)
    assert replayed.replays
    expected = plain.model.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in replayed.model.state_dict().items())


def test_the_branch_learns_at_the_rate_of_the_head() -> None:
    config = fused(head_lr_factor=7.0)
    step = trained(config)
    branch = {id(each) for name, each in step.model.named_parameters() if name.startswith(("metadata.", "beside."))}
    factors = {
        group["factor"] for group in step.optimizer.param_groups if branch & {id(each) for each in group["params"]}
    }
    assert factors == {7.0}


def test_withheld_fields_depend_on_seed_epoch_and_image_alone() -> None:
    withheld = stream.blanked(5, 2, 4000, 3)
    assert np.array_equal(withheld, stream.blanked(5, 2, 4000, 3))
    assert np.array_equal(withheld[:100], stream.blanked(5, 2, 100, 3))
    assert np.array_equal(withheld[:, :2], stream.blanked(5, 2, 4000, 2))
    assert not np.array_equal(withheld, stream.blanked(5, 3, 4000, 3))
    assert not np.array_equal(withheld, stream.blanked(6, 2, 4000, 3))
    assert np.abs(withheld.mean(axis=0) - stream.BLANKED).max() < 0.03
    assert np.abs(np.corrcoef(withheld.T)[~np.eye(3, dtype=bool)]).max() < 0.06  # each field by itself


def test_loaders_feed_metadata_and_withhold_them_in_training_alone(dataset: Dataset) -> None:
    samples = replace(all_samples(dataset), metadata=np.tile(np.float32([40, 1, 2]), (len(dataset.manifest), 1)))

    def epoch(first: int) -> list[TrainingBatch]:
        loader = TrainingLoader(samples, FRAME, 8, "none", False, 4, World())
        return list(loader.epoch(1, first))

    whole = epoch(0)
    withheld = stream.blanked(4, 1, len(samples.rows), 3)
    for each in whole:
        assert each.metadata is not None
        assert np.array_equal(each.metadata.isnan().numpy(), withheld[each.samples])
        assert each.inputs[1] is each.metadata
    for resumed, each in zip(epoch(2), whole[2:], strict=True):
        assert all(torch.equal(*pair) for pair in zip(resumed.inputs[:1], each.inputs[:1], strict=True))
        assert np.array_equal(resumed.metadata, each.metadata, equal_nan=True)  # type: ignore[arg-type]
    for _, evaluated in EvaluationLoader(samples, FRAME, 8, World()):
        assert evaluated.metadata is not None
        assert not np.isnan(evaluated.metadata).any()


def unit(folder: Path, dataset: Dataset) -> Unit:
    config = fused(
        epochs=2, folds=2, optimizer="adam", lr=1e-2, data=str(dataset.folder), runs=folder, name="run", ema_decay=0.9
    )
    folds = make_folds(dataset.manifest, LABEL_SETS["isic2019"], 2, config.seed)
    run = locate_run(config, open_dataset(str(dataset.folder)))
    open_run(run, config, folds)
    return Unit(config, 0, str(dataset.folder), dataset.fingerprint, run.path)


def test_a_stopped_and_resumed_unit_has_the_bytes_of_one_that_never_stopped(tmp_path: Path, dataset: Dataset) -> None:
    configure_device(None, threads=1)
    whole, stopped = (unit(tmp_path / name, dataset) for name in ("whole", "stopped"))
    train_unit(whole, World(), lambda event: None)
    steps = iter(range(100))
    train_unit(stopped, World(), lambda event: None, lambda: next(steps) == 5)
    assert not stopped.predictions.is_file()
    train_unit(stopped, World(), lambda event: None)
    for name in ("predictions.parquet", WITHOUT_METADATA):
        assert (whole.folder / name).read_bytes() == (stopped.folder / name).read_bytes()
    assert whole.model.read_bytes() == stopped.model.read_bytes()
    told_all, without = (pd.read_parquet(whole.folder / name) for name in ("predictions.parquet", WITHOUT_METADATA))
    assert told_all["image_id"].tolist() == without["image_id"].tolist()
    assert not np.array_equal(told_all["MEL"], without["MEL"])

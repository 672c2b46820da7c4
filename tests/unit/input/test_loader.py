from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from melanoma_dist.data.manifest import Dataset, load_dataset
from melanoma_dist.errors import CorruptImages, DataError
from melanoma_dist.input import stream
from melanoma_dist.input.graph import ORIENTATIONS
from melanoma_dist.input.loader import EvaluationLoader, TrainingBatch, TrainingLoader, label_patterns
from melanoma_dist.input.samples import Samples
from melanoma_dist.world import World

from ..samples import FRAME, all_samples

BATCH = 8
ONE_LEVEL = 1.001 / 255 / min(FRAME.std)  # of the normalised image: where a kernel rounds the other way


def training(samples: Samples, world: World = World(), **changed: object) -> TrainingLoader:  # noqa: B008
    chosen = {"batch_size": BATCH, "augment": "dermoscopy", "balance": False, "seed": 5, **changed}
    return TrainingLoader(samples, FRAME, world=world, **chosen)  # type: ignore[arg-type]


def epoch(loader: TrainingLoader, number: int) -> list[TrainingBatch]:
    return [replace(batch, images=batch.images.clone()) for batch in loader.epoch(number)]


@pytest.fixture(scope="module")
def samples(dataset: Dataset) -> Samples:
    samples = all_samples(dataset)
    unknown = samples.targets.copy()
    unknown[::7, 3] = np.nan
    unknown[5] = np.nan
    return replace(samples, targets=unknown)


def test_an_epoch_sees_every_sample_with_its_targets(samples: Samples) -> None:
    loader = training(samples)
    batches = epoch(loader, 0)
    n = len(samples.rows)
    assert len(batches) == loader.steps == -(-n // BATCH)
    drawn = np.concatenate([batch.samples for batch in batches])
    assert set(drawn) == set(range(n))
    assert len(drawn) < n + BATCH
    for batch in batches:
        assert batch.images.shape == (BATCH, 3, FRAME.size, FRAME.size)
        expected = samples.targets[batch.samples]
        assert np.array_equal(batch.targets.numpy(), expected, equal_nan=True)
        assert batch.known == int((~np.isnan(expected)).sum())
    assert len({batch.known for batch in batches}) > 1


def test_images_are_those_of_the_samples(samples: Samples) -> None:
    loader = EvaluationLoader(samples, FRAME, 1, World())
    whole = torch.cat([images.clone() for images, _ in loader])
    for batch in epoch(training(samples, augment="none"), 1):
        assert (batch.images - whole[batch.samples]).abs().max() < 1e-5


def test_images_are_shown_in_all_eight_orientations(samples: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(stream.POLICIES, "light", stream.Policy(flips=True))
    plain = torch.cat([images.clone() for images, _ in EvaluationLoader(samples, FRAME, 1, World())])
    orientations = set()
    for step, batch in enumerate(epoch(training(samples, augment="light"), 1)):
        drawn = stream.parameters(stream.Policy(flips=True), 5, 1, step * BATCH, BATCH)
        for image, sample, flip, exchange in zip(batch.images, batch.samples, drawn.flip, drawn.exchange, strict=True):
            expected = plain[sample].flip([axis for axis in (1, 2) if flip[axis - 1]])
            expected = expected.transpose(1, 2) if exchange else expected
            assert (image - expected).abs().max() <= ONE_LEVEL
            orientations.add((*flip, exchange))
    assert len(orientations) == 8


def test_an_epoch_can_be_had_again_and_differs_from_the_next(samples: Samples) -> None:
    loader = training(samples)
    first, second = epoch(loader, 0), epoch(loader, 1)
    again = epoch(loader, 0)
    afresh = epoch(training(samples), 1)
    for one, other in ((first, again), (second, afresh)):
        assert all(
            (a.samples == b.samples).all() and torch.equal(a.images, b.images) for a, b in zip(one, other, strict=True)
        )
    assert any((a.samples != b.samples).any() for a, b in zip(first, second, strict=True))
    other_seed = epoch(training(samples, seed=6), 0)
    assert any((a.samples != b.samples).any() for a, b in zip(first, other_seed, strict=True))


@pytest.mark.parametrize("balance", [False, True])
@pytest.mark.parametrize("ranks", [2, 3])
def test_any_number_of_ranks_shares_the_same_global_batches(samples: Samples, ranks: int, balance: bool) -> None:
    alone = epoch(training(samples, balance=balance), 2)
    shares = [epoch(training(samples, World(rank, ranks), balance=balance), 2) for rank in range(ranks)]
    for step, whole in enumerate(alone):
        images = torch.empty_like(whole.images)
        order = np.empty_like(whole.samples)
        for rank in range(ranks):
            part = shares[rank][step]
            assert part.known == whole.known
            images[rank::ranks], order[rank::ranks] = part.images, part.samples
        assert (order == whole.samples).all()
        assert torch.equal(images, whole.images)


def test_balance_draws_the_label_sets_equally(samples: Samples) -> None:
    drawn = np.concatenate(
        [b.samples for e in range(12) for b in epoch(training(samples, balance=True, augment="none"), e)]
    )
    counts = np.bincount(label_patterns(samples.targets)[drawn])
    expected = len(drawn) / len(counts)
    assert ((counts - expected) ** 2 / expected).sum() < len(counts) + 6 * np.sqrt(2 * len(counts))


def test_label_patterns_tell_unknown_from_no() -> None:
    rows = np.array([[1, 0], [1, np.nan], [1, 0], [0, 0], [1, np.nan]], dtype=np.float32)
    numbers = label_patterns(rows)
    assert len(set(numbers)) == 3
    assert numbers[0] == numbers[2] != numbers[1] == numbers[4]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_an_evaluation_covers_all_and_can_be_repeated(samples: Samples, ranks: int) -> None:
    alone = {tuple(batch.samples): images.clone() for images, batch in EvaluationLoader(samples, FRAME, BATCH, World())}
    loaders = [EvaluationLoader(samples, FRAME, BATCH, World(rank, ranks)) for rank in range(ranks)]
    for _ in range(2):
        counted: list[int] = []
        for loader in loaders:
            for images, batch in loader:
                counted += batch.samples[: batch.count].tolist()
                if batch.count:
                    assert torch.equal(images, alone[tuple(batch.samples)])
        assert sorted(counted) == list(range(len(samples.rows)))


def damaged(dataset: Dataset, folder: Path, row: int, at: float, junk: bytes) -> Dataset:
    """A copy of the data with ``junk`` written over one image, ``at`` this share of its bytes."""
    copy = folder / "copy"
    shutil.copytree(dataset.folder, copy)
    place = dataset.manifest.iloc[row]
    with (copy / place["shard"]).open("r+b") as file:
        file.seek(int(place["offset"]) + int(place["length"] * at))
        file.write(junk)
    return load_dataset(copy)


@pytest.mark.parametrize(("at", "junk"), [(0.0, bytes(64)), (0.0, b"\xff\xd8" + bytes(300))], ids=["start", "header"])
def test_a_damaged_header_is_told_with_the_name_of_the_image(
    dataset: Dataset, tmp_path: Path, at: float, junk: bytes
) -> None:
    broken = all_samples(damaged(dataset, tmp_path, 13, at, junk))
    name = dataset.manifest.iloc[13]["image_id"]
    with pytest.raises(DataError) as caught:
        list(EvaluationLoader(broken, FRAME, BATCH, World()))
    assert name in str(caught.value)
    with pytest.raises(CorruptImages) as caught_too:
        list(training(broken).epoch(0))
    assert caught_too.value.image_ids == (name,)
    assert name in str(caught_too.value)


def test_a_corrupt_image_is_reported_by_its_name(dataset: Dataset, tmp_path: Path) -> None:
    length = int(dataset.manifest.iloc[13]["length"])
    broken = all_samples(damaged(dataset, tmp_path, 13, 0.3, b"\xff\xc4" * (length // 5)))
    with pytest.raises(DataError) as caught:
        list(EvaluationLoader(broken, FRAME, BATCH, World()))
    assert dataset.manifest.iloc[13]["image_id"] in str(caught.value)


def test_a_damaged_sample_weighs_nothing_and_another_photograph_is_shown_for_it(samples: Samples) -> None:
    last = len(samples.rows) - 1
    spoilt = replace(samples, corrupt=np.array([12, 13, last]))
    replacements = {12: 14, 13: 14, last: 0}
    whole = torch.cat([images.clone() for images, _ in EvaluationLoader(samples, FRAME, 1, World())])
    met: set[int] = set()
    for batch, before in zip(epoch(training(spoilt, augment="none"), 1), epoch(training(samples), 1), strict=True):
        assert np.array_equal(batch.samples, before.samples)
        expected = samples.targets[batch.samples].copy()
        expected[np.isin(batch.samples, spoilt.corrupt)] = np.nan
        assert np.array_equal(batch.targets.numpy(), expected, equal_nan=True)
        assert batch.known == int((~np.isnan(expected)).sum())
        others = [replacements.get(int(sample), int(sample)) for sample in batch.samples]
        assert (batch.images - whole[others]).abs().max() < 1e-5
        met |= replacements.keys() & set(batch.samples.tolist())
    assert met == replacements.keys()


def test_damage_does_not_change_what_is_drawn(samples: Samples) -> None:
    spoilt = replace(samples, corrupt=np.arange(5))
    drawn = [[b.samples for b in epoch(training(each, balance=True), 3)] for each in (samples, spoilt)]
    assert np.array_equal(*drawn)


def test_the_eight_views_are_the_orientations_of_the_plain_image(samples: Samples) -> None:
    loader = EvaluationLoader(samples, FRAME, BATCH, World())
    plain = torch.cat([images.clone() for images, _ in loader]).numpy()
    actual = [torch.cat([images.clone() for images, _ in loader.batches(view)]).numpy() for view in ORIENTATIONS]
    assert np.array_equal(actual[0], plain)
    expected = [np.rot90(mirrored, turns, axes=(2, 3)) for mirrored in (plain, plain[..., ::-1]) for turns in range(4)]
    which = [[np.array_equal(view, turned) for turned in expected] for view in actual]
    assert np.sum(which, axis=0).tolist() == np.sum(which, axis=1).tolist() == [1] * 8
    assert np.array_equal(actual[1], plain[..., ::-1])
    assert np.array_equal(actual[3], np.rot90(plain, 2, axes=(2, 3)))
    again = torch.cat([images.clone() for images, _ in loader]).numpy()
    assert np.array_equal(again, plain)

"""The features that a run leaves behind, and what new images are compared with."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

import melanoma_dist
from melanoma_dist.artifacts.features import FEATURES
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.errors import DataError
from melanoma_dist.inference.ensemble import Ensemble
from melanoma_dist.inference.images import Images

from ..evaluate.holdout.conftest import FOLDS


@pytest.fixture
def trained(finished: Path, data: Dataset) -> Images:
    """The images of the run, in the order of the data set."""
    return melanoma_dist.load_run(finished).trained(data)


def test_the_features_of_the_run_are_those_that_its_models_compute(ensemble: Ensemble, trained: Images) -> None:
    features = ensemble.run_features
    assert features is not None
    predictions = ensemble.predict(trained, tta=1, features=True)
    order = [list(features.image_ids).index(name) for name in predictions.image_ids]
    for own, space, model in zip(predictions.features, features.spaces, ensemble.folds, strict=True):
        np.testing.assert_allclose(own, space.images[order], atol=2e-3)  # stored with 16 bits
        pixels = torch.cat([images[: batch.count] for images, batch in ensemble.loader(trained)])
        with torch.inference_mode():
            vectors = torch.nn.functional.normalize(model.features(pixels)).numpy()
        np.testing.assert_allclose(own, vectors @ space.basis, atol=1e-5)


def test_features_change_no_probability(ensemble: Ensemble, trained: Images) -> None:
    plain, more = ensemble.predict(trained, tta=2), ensemble.predict(trained, tta=2, features=True)
    assert np.array_equal(plain.raw, more.raw)
    assert (plain.features, len(more.features)) == ((), FOLDS)


def test_the_nearest_image_of_an_image_is_itself(ensemble: Ensemble, trained: Images) -> None:
    features = ensemble.run_features
    assert features is not None
    coordinates = ensemble.predict(trained, tta=1, features=True).features
    nearest = features.nearest(coordinates, 3)
    assert nearest.image_ids.shape == nearest.similarity.shape == (len(trained.rows), 3)
    same = nearest.image_ids[:, 0] == np.array(trained.image_ids)
    assert same.mean() > 0.9  # some have a copy
    assert (np.diff(nearest.similarity, axis=1) <= 0).all()


def test_the_limit_is_that_of_the_images_a_fold_was_not_trained_on(ensemble: Ensemble) -> None:
    features = ensemble.run_features
    assert features is not None
    for fold, space in enumerate(features.spaces):
        unseen, training = space.images[features.folds == fold], space.images[features.folds != fold]
        fifth = np.sort(unseen @ training.T, axis=1)[:, -5]
        assert space.limit == pytest.approx(np.quantile(1 - fifth, 0.99), abs=2e-3)


def test_a_run_without_features_predicts_and_knows_no_novelty(finished: Path, trained: Images, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(finished, tmp_path / "run"))
    (copy / "fold-1" / FEATURES).unlink()
    ensemble = melanoma_dist.load_run(copy).ensemble(threads=1)
    assert ensemble.run_features is None
    assert ensemble.predict(trained, tta=1, features=True).features == ()


def test_features_of_earlier_versions_have_no_hash_and_are_read(finished: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(finished, tmp_path / "run"))
    for fold in range(FOLDS):
        (copy / f"fold-{fold}" / "features.sha256").unlink()
    assert melanoma_dist.load_run(copy).ensemble(threads=1).run_features is not None


def test_features_that_were_exchanged_are_refused(finished: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(finished, tmp_path / "run"))
    shutil.copy(copy / "fold-1" / FEATURES, copy / "fold-0" / FEATURES)
    digests = [hashlib.sha256((finished / f"fold-{fold}" / FEATURES).read_bytes()).hexdigest()[:12] for fold in (0, 1)]
    message = f"their sha256 is {digests[1]}..., must be {digests[0]}... as in features.sha256"
    with pytest.raises(DataError, match=re.escape(message)):
        _ = melanoma_dist.load_run(copy).ensemble(threads=1).run_features


@pytest.mark.parametrize("fault", ["bytes", "data", "nan", "zero", "images", "basis"])
def test_corrupt_features_are_refused(finished: Path, tmp_path: Path, fault: str) -> None:
    copy = Path(shutil.copytree(finished, tmp_path / "run"))
    path = copy / "fold-0" / FEATURES
    tensors, fingerprint = load_file(path), melanoma_dist.load_run(finished).fingerprint
    if fault == "bytes":
        path.write_bytes(path.read_bytes()[:100])
    else:
        tensors |= {"limit": np.array([np.nan])} if fault == "nan" else {}
        tensors |= {"limit": np.array([0.0])} if fault == "zero" else {}
        tensors |= {"images": tensors["images"][:-1]} if fault == "images" else {}
        tensors |= {"basis": tensors["basis"][:-1]} if fault == "basis" else {}
        save_file(tensors, path, {"data": "other" if fault == "data" else fingerprint})
    (copy / "fold-0" / "features.sha256").unlink()
    with pytest.raises(DataError, match="fold-0"):
        _ = melanoma_dist.load_run(copy).ensemble(threads=1).run_features

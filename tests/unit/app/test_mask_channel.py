"""A run that sees the lesion's mask beside the image: trained, judged, explained and served with the same mask."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors import safe_open
from starlette.testclient import TestClient

from melanoma_dist.app.server.api import build_app
from melanoma_dist.app.server.service import start_service
from melanoma_dist.artifacts.lesion_table import read_lesions
from melanoma_dist.config.evaluate import EvaluateConfig
from melanoma_dist.config.serve import ServeConfig
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.errors import DataError
from melanoma_dist.evaluate.holdout.command import evaluate
from melanoma_dist.inference.ensemble import Ensemble
from melanoma_dist.inference.explanation import explain
from melanoma_dist.inference.images import Images
from melanoma_dist.inference.photographs import Photographs
from melanoma_dist.inference.trained_run import open_trained_run
from melanoma_dist.train import region

from ..evaluate.holdout.conftest import other_data, trained
from .conftest import Predict
from .server.conftest import form
from .test_apply import applied, data, run
from .test_two_stages import files, new_rows

__all__ = ["applied", "data", "other_data", "run"]
FOLDS = 2


@pytest.fixture(scope="module", autouse=True)
def limit(applied: Path, data: Dataset) -> Iterator[float]:
    """A limit of quality that half of the masks of the segmenter, which has hardly been trained, are above."""
    value = float(read_lesions(applied, data).rows["quality"].median())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(region, "LOW_QUALITY", value)
        yield value


def masked(folder: Path, data: Dataset, applied: Path, **sight: str) -> Path:
    chosen = {"labels": "melanoma", "batch_size": 4, "image_size": 64, "lesions": str(applied)}
    return trained(folder, data, mask="channel", **sight, **chosen)


@pytest.fixture(scope="module")
def mask_run(tmp_path_factory: pytest.TempPathFactory, data: Dataset, applied: Path) -> Path:
    return masked(tmp_path_factory.mktemp("mask-runs"), data, applied)


@pytest.fixture(scope="module")
def box_run(tmp_path_factory: pytest.TempPathFactory, data: Dataset, applied: Path) -> Path:
    """A run that sees the lesion's box, with the mask in it."""
    return masked(tmp_path_factory.mktemp("box-runs"), data, applied, region="lesion")


@pytest.fixture(params=["mask_run", "box_run"])
def each_run(request: pytest.FixtureRequest) -> Path:
    return Path(request.getfixturevalue(request.param))


def trusted(applied: Path, data: Dataset, limit: float) -> np.ndarray:
    rows = read_lesions(applied, data).rows
    return (rows["detected"] & (rows["quality"] >= limit)).to_numpy()


def test_a_fold_predicts_its_validation_images_to_the_bit_as_in_training(each_run: Path, data: Dataset) -> None:
    ensemble = Ensemble.load(each_run, threads=1)
    fold_of = data.manifest["image_id"].map(pd.read_parquet(each_run / "folds.parquet").set_index("image_id")["fold"])
    for fold in range(FOLDS):
        images = Images.of(data, (fold_of == fold).to_numpy())
        before = pd.read_parquet(each_run / f"fold-{fold}" / "predictions.parquet")
        np.testing.assert_array_equal(ensemble.predict(images).raw[fold], before[list(ensemble.labels)].to_numpy())


def test_models_see_the_masks_of_the_table_and_empty_ones_where_none_is_trusted(
    each_run: Path, applied: Path, data: Dataset, limit: float
) -> None:
    rows, ensemble = np.arange(len(data.manifest)), Ensemble.load(each_run, threads=1)
    ((batch, _),) = list(ensemble.loader(Images(data, rows), len(rows)))
    assert batch.shape == (len(rows), 4, 64, 64)
    sure, table = trusted(applied, data, limit), read_lesions(applied, data)
    assert 0 < sure.sum() < len(rows)
    np.testing.assert_array_equal(batch[:, 3].flatten(1).amax(1).numpy() > 0, sure)
    if open_trained_run(each_run).config.region.region == "whole":
        for row in np.flatnonzero(sure):
            mask = Image.fromarray(table.mask(row)).convert("L").resize((64, 64), Image.Resampling.BILINEAR)
            np.testing.assert_allclose(batch[row, 3], np.asarray(mask) / 255, atol=1.01 / 255)


def test_a_photograph_is_judged_with_its_mask_as_its_image_in_the_data_set(
    each_run: Path, applied: Path, data: Dataset, limit: float, predict: Predict, tmp_path: Path
) -> None:
    rows, ensemble = new_rows(applied, data), Ensemble.load(each_run, threads=1)
    expected, predictions = ensemble.predict(Images(data, rows)), ensemble.predict(files(data, rows))
    assert np.abs(predictions.raw - expected.raw).max() < 1e-6
    masks = np.where(trusted(applied, data, limit)[rows], "lesion", "empty").tolist()
    assert [lesion.mask for lesion in predictions.lesions] == masks
    assert [lesion.trusted for lesion in predictions.lesions] == [each == "lesion" for each in masks]
    out = tmp_path / "out.csv"
    predict(each_run, *files(data, rows), "--out", out)
    answers = pd.read_csv(out)
    assert answers["mask"].tolist() == masks
    assert answers["doubts"].fillna("").str.contains("with an empty mask").tolist() == [
        each == "empty" for each in masks
    ]
    config = open_trained_run(each_run).config.region
    regions = masks if config.region == "lesion" else ["whole"] * len(rows)
    assert answers["region"].tolist() == [{"empty": "whole"}.get(each, each) for each in regions]


def test_the_mask_counts(mask_run: Path, applied: Path, data: Dataset) -> None:
    """What the models answer depends on the mask that the photograph comes with."""
    ensemble = Ensemble.load(mask_run, threads=1)
    located = ensemble.located(Photographs.prepare(files(data, new_rows(applied, data)), data.size))
    assert isinstance(located, Photographs)
    width, height = located.sizes[0]
    file = io.BytesIO()
    Image.new("1", (width, height), 1).save(file, "PNG")
    other = Photographs(
        located.image_ids, located.jpegs, located.sizes, (), located.lesions, (file.getvalue(),) * len(located.masks)
    )
    assert np.abs(ensemble.predict(located).raw - ensemble.predict(other).raw).max() > 1e-4


def test_images_with_an_empty_mask_are_counted_and_the_weights_say_what_they_take(
    each_run: Path, applied: Path, data: Dataset, limit: float
) -> None:
    folds = pd.read_parquet(each_run / "folds.parquet")
    inside = data.manifest["image_id"].isin(folds["image_id"]).to_numpy()
    run, count = open_trained_run(each_run), int((trusted(applied, data, limit) & inside).sum())
    phrase = (
        "by their lesion's box with its mask" if run.config.region.region == "lesion" else "with their lesion's mask"
    )
    assert run.summary.incidents[-1].startswith(f"{count} of {inside.sum()} images are seen {phrase}, ")
    with safe_open(each_run / "model" / "fold-0.safetensors", "pt") as weights:
        assert weights.metadata()["mask"].startswith("fourth channel")


def test_another_data_set_is_evaluated_with_its_own_masks(mask_run: Path, other_data: Dataset) -> None:
    evaluate(EvaluateConfig(mask_run, data=str(other_data.folder), gpus=0, decode_threads=1))
    [folder] = (mask_run / "evaluations").glob("001-*")
    table = pd.read_parquet(folder / "predictions.parquet").set_index("image_id")
    rows = np.arange(3)
    expected = Ensemble.load(mask_run, threads=1).predict(files(other_data, rows)).probability
    np.testing.assert_allclose(table.loc[other_data.manifest["image_id"].iloc[rows], "MEL"], expected[:, 0], atol=1e-5)


def test_the_server_says_which_mask_was_seen_and_explains(
    mask_run: Path, applied: Path, data: Dataset, limit: float
) -> None:
    served = ServeConfig(mask_run, decode_threads=1)
    service = start_service(open_trained_run(mask_run), served)
    try:
        client = TestClient(build_app(service, served, None), base_url="http://127.0.0.1:8000")
        row = int(new_rows(applied, data)[0])
        image = files(data, np.array([row]))[0].read_bytes()
        [answer] = client.post("/v1/predict", files=form(image)).json()["images"]
        assert answer["lesion"]["mask"] == ("lesion" if trusted(applied, data, limit)[row] else "empty")
        assert client.get("/v1/model").json()["region"]["mask"] == "channel"
        assert client.post("/v1/explain", files=form(image)).json()["window"] == answer["lesion"]["window"]
    finally:
        service.close()
    [explanation] = explain(Ensemble.load(mask_run, threads=1), Images(data, np.array([row])), "MEL")
    assert explanation.evidence is not None or explanation.why


def test_a_mask_that_changed_is_refused(mask_run: Path, applied: Path, data: Dataset, limit: float) -> None:
    row = int(np.flatnonzero(trusted(applied, data, limit))[0])
    path = applied / "masks" / f"{data.manifest['image_id'].iloc[row]}.png"
    content = path.read_bytes()
    path.write_bytes(content[:-1])
    try:
        with pytest.raises(DataError, match=r"the mask cannot be used \(its bytes are not those that were written\)"):
            Ensemble.load(mask_run, threads=1).predict(Images(data, np.array([row])))
    finally:
        path.write_bytes(content)

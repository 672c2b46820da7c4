"""A run that sees lesions judges photographs: its segmenter travels with it, and both stages are those of training."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from starlette.testclient import TestClient

from melanoma_dist.app import apply as command
from melanoma_dist.app.export.command import export
from melanoma_dist.app.server.api import build_app
from melanoma_dist.app.server.service import start_service
from melanoma_dist.artifacts.lesion_table import BOX, RECORD, read_lesions
from melanoma_dist.artifacts.records import write_record
from melanoma_dist.artifacts.segmenter_copy import SEGMENTER, bring_segmenter
from melanoma_dist.config.evaluate import EvaluateConfig
from melanoma_dist.config.export import ExportConfig
from melanoma_dist.config.serve import ServeConfig
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.errors import ConfigError, DataError
from melanoma_dist.evaluate.holdout.command import evaluate
from melanoma_dist.evaluate.holdout.contamination import training_images
from melanoma_dist.inference.ensemble import Ensemble
from melanoma_dist.inference.explanation import explain
from melanoma_dist.inference.images import Images
from melanoma_dist.inference.photographs import Photographs
from melanoma_dist.inference.trained_run import open_trained_run
from melanoma_dist.train import region

from ..evaluate.holdout.conftest import other_data, trained
from .conftest import Predict
from .server.conftest import form
from .test_apply import applied, data, run, settings

__all__ = ["applied", "data", "other_data", "run"]


@pytest.fixture(scope="module", autouse=True)
def trusting() -> Iterator[None]:
    """Trust every mask: the segmenter has hardly been trained."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(region, "LOW_QUALITY", 0.0)
        yield


@pytest.fixture(scope="module")
def lesion_run(tmp_path_factory: pytest.TempPathFactory, data: Dataset, applied: Path) -> Path:
    chosen = {"labels": "melanoma", "batch_size": 4, "image_size": 64, "region": "lesion", "lesions": str(applied)}
    return trained(tmp_path_factory.mktemp("lesion-runs"), data, **chosen)


def new_rows(applied: Path, data: Dataset) -> np.ndarray:
    """Rows of images that lie in none of the segmenter's folds: new photographs to it."""
    return np.flatnonzero(read_lesions(applied, data).rows["model"] == "ensemble")


def files(data: Dataset, rows: np.ndarray) -> list[Path]:
    return [data.folder.parent / "raw" / source for source in data.manifest["source"].iloc[rows]]


def test_a_photograph_is_judged_as_its_image_in_the_data_set_by_the_run_alone(
    lesion_run: Path, applied: Path, data: Dataset, tmp_path: Path
) -> None:
    rows, table = new_rows(applied, data), read_lesions(applied, data).rows
    ensemble = Ensemble.load(lesion_run, threads=1)
    images = Images(data, rows)
    windows, expected = ensemble.windows(images), ensemble.predict(images)
    assert windows is not None
    moved = shutil.copytree(lesion_run, tmp_path / "elsewhere")
    aside = applied.rename(applied.with_name("aside"))
    try:
        other = Ensemble.load(moved, threads=1)
        predictions = other.predict(files(data, rows))
    finally:
        aside.rename(applied)
    lesions = predictions.lesions
    boxes = np.array([lesion.window for lesion in lesions], dtype=np.float32)
    np.testing.assert_array_equal(boxes, np.concatenate([windows.anchor, windows.extent], axis=1))
    assert (boxes[:, 2:] < 1).any()
    assert np.abs(predictions.raw - expected.raw).max() < 1e-6
    detected = table["detected"].iloc[rows].tolist()
    assert [lesion.region == "lesion" for lesion in lesions] == detected
    for lesion, row in zip(lesions, rows, strict=True):
        assert lesion.quality == pytest.approx(table["quality"].iloc[row], abs=1e-6)
        if lesion.box is not None:
            assert lesion.box == pytest.approx(table[list(BOX)].iloc[row].tolist(), abs=1e-6)


def test_predict_says_what_the_models_saw(
    lesion_run: Path, applied: Path, data: Dataset, predict: Predict, tmp_path: Path
) -> None:
    rows = new_rows(applied, data)[:3]
    out = tmp_path / "out.csv"
    predict(lesion_run, *files(data, rows), "--out", out)
    answers = pd.read_csv(out)
    table = read_lesions(applied, data).rows.iloc[rows]
    assert answers["region"].tolist() == np.where(table["detected"], "lesion", "whole").tolist()
    for name in BOX:
        expected = table[name].where(table["detected"])
        np.testing.assert_allclose(answers[f"lesion_{name}"], expected, atol=1e-6)
    np.testing.assert_allclose(answers["lesion_quality"], table["quality"], atol=1e-6)


def test_another_data_set_is_evaluated_with_the_runs_segmenter(
    lesion_run: Path, other_data: Dataset, tmp_path: Path
) -> None:
    run = Path(shutil.copytree(lesion_run, tmp_path / "runs" / "first"))
    evaluate(EvaluateConfig(run, data=str(other_data.folder), gpus=0, decode_threads=1))
    [folder] = (run / "evaluations").glob("001-*")
    table = pd.read_parquet(folder / "predictions.parquet").set_index("image_id")
    rows = np.arange(3)
    expected = Ensemble.load(run, threads=1).predict(files(other_data, rows)).probability
    actual = table.loc[other_data.manifest["image_id"].iloc[rows], "MEL"]
    np.testing.assert_allclose(actual, expected[:, 0], atol=1e-5)
    assert len(training_images(open_trained_run(run), open_trained_run(run).dataset(None))) == 2


def test_an_explanation_covers_what_the_models_saw(lesion_run: Path, applied: Path, data: Dataset) -> None:
    ensemble = Ensemble.load(lesion_run, threads=1)
    rows = new_rows(applied, data)[:2]
    photographs = ensemble.located(Photographs.prepare(files(data, rows), data.size))
    assert isinstance(photographs, Photographs)
    explanations = explain(ensemble, photographs, "MEL")
    assert [each.window for each in explanations] == [lesion.window for lesion in photographs.lesions]


def test_the_server_gives_box_and_outline(lesion_run: Path, applied: Path, data: Dataset) -> None:
    served = ServeConfig(lesion_run, decode_threads=1)
    service = start_service(open_trained_run(lesion_run), served)
    try:
        client = TestClient(build_app(service, served, None), base_url="http://127.0.0.1:8000")
        row = int(new_rows(applied, data)[0])
        image = files(data, np.array([row]))[0].read_bytes()
        [answer] = client.post("/v1/predict", files=form(image)).json()["images"]
        expected = read_lesions(applied, data).rows.iloc[row]
        lesion = answer["lesion"]
        assert lesion["region"] == answer["region"] == "lesion"
        assert lesion["box"] == pytest.approx({name: expected[name] for name in BOX}, abs=1e-6)
        x, y = np.array(lesion["outline"]).T
        assert (x.min(), y.min()) == pytest.approx((expected["left"], expected["top"]), abs=0.02)
        assert x.max() == pytest.approx(expected["left"] + expected["width"], abs=0.02)
        assert client.post("/v1/explain", files=form(image)).json()["window"] == lesion["window"]
        about = client.get("/v1/model").json()["region"]
        assert (about["region"], about["margin"]) == ("lesion", 0.3)
    finally:
        service.close()


def test_a_segmenter_that_is_missing_changed_or_of_another_run_is_refused(
    lesion_run: Path, applied: Path, data: Dataset, tmp_path: Path
) -> None:
    photograph = files(data, np.array([0]))
    run = Path(shutil.copytree(lesion_run, tmp_path / "run"))
    weights = run / SEGMENTER / "model" / "fold-0.safetensors"
    content = weights.read_bytes()
    weights.unlink()  # a hard link: the file of the table must not change
    weights.write_bytes(content[:-4] + b"abcd")
    with pytest.raises(DataError, match="differs from the file that the training wrote"):
        Ensemble.load(run, threads=1).predict(photograph)
    weights.write_bytes(content)
    config = run / SEGMENTER / "config.yaml"
    text = config.read_text()
    config.unlink()
    config.write_text(text.replace("threshold: 0.5", "threshold: 0.4"))
    with pytest.raises(DataError, match="is not the segmenter that found the lesions of the run's training"):
        Ensemble.load(run, threads=1).predict(photograph)
    shutil.rmtree(run / SEGMENTER)
    with pytest.raises(ConfigError, match=r"holds no segmenter.*segment apply.*run it again"):
        open_trained_run(run).require_sight()
    bring_segmenter(applied, run)  # what running the training command again does
    assert Ensemble.load(run, threads=1).predict(photograph).lesions
    record = run / SEGMENTER / RECORD
    other = replace(read_lesions(applied, data).record, fingerprint="0" * 64)
    record.unlink()
    write_record(record, other)
    with pytest.raises(DataError, match="belongs to another run, trained with other lesions"):
        Ensemble.load(run, threads=1).predict(photograph)


def test_apply_adds_the_segmenter_to_a_table_of_an_earlier_version(applied: Path, run: Path, tmp_path: Path) -> None:
    table = Path(shutil.copytree(applied, tmp_path / "table"))
    shutil.rmtree(table / SEGMENTER)
    command.apply(settings(run, table))
    names = {str(path.relative_to(table)) for path in (table / SEGMENTER).rglob("*") if path.is_file()}
    assert {f"{SEGMENTER}/{name}" for name in ("record.json", "config.yaml", "summary.json", "folds.parquet")} <= names
    assert f"{SEGMENTER}/model/fold-1.safetensors" in names


def test_the_hub_has_no_place_for_a_segmenter(lesion_run: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--format hub: has no place for the segmenter .*Type --format onnx"):
        export(ExportConfig(lesion_run, format="hub", out=tmp_path / "hub"))

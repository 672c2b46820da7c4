"""A run with metadata answers the same on all paths: with what is known of a patient, and without."""

from __future__ import annotations

import csv
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pandas as pd
import pytest
from starlette.testclient import TestClient

import melanoma_dist
from melanoma_dist.app.server.api import build_app
from melanoma_dist.app.server.service import start_service
from melanoma_dist.artifacts.predictions import WITHOUT_METADATA
from melanoma_dist.artifacts.summary import read_summary
from melanoma_dist.config.serve import ServeConfig
from melanoma_dist.data.labels import TRUE
from melanoma_dist.data.manifest import Dataset, fingerprint, write_description, write_table
from melanoma_dist.errors import ConfigError
from melanoma_dist.inference.ensemble import Ensemble
from melanoma_dist.inference.images import Images
from melanoma_dist.inference.trained_run import open_trained_run

from ..evaluate.holdout.conftest import trained
from .conftest import Export, Predict
from .test_export import alone, packages

__all__ = ["packages"]

FIELDS = ("age", "sex", "site")


@pytest.fixture(scope="session")
def told_data(data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """The same images, of patients that differ; of some nothing is known."""
    folder = tmp_path_factory.mktemp("told") / "prepared"
    shutil.copytree(data.folder, folder)
    table = data.manifest.copy()
    number = np.arange(len(table))
    table["age"] = np.where(number % 5 == 0, np.nan, 20 + number).astype(np.float32)
    table["sex"] = pd.Series(np.where(number % 7 == 0, None, np.where(number % 2, "male", "female")), dtype="str")
    table["site"] = pd.Series(np.where(number % 3 == 0, None, "palms/soles"), dtype="str")
    table["lesion_id"] = pd.Series([f"{'HAM' if row % 2 else 'BCN'}_{row}" for row in number], dtype="str")
    write_table(folder / "manifest.parquet", table)
    content = json.loads((folder / "dataset.json").read_text())
    write_description(folder, {**content, "fingerprint": fingerprint(table, data.size)})
    return replace(data, folder=folder, manifest=table, fingerprint=fingerprint(table, data.size))


@pytest.fixture(scope="session")
def told_run(told_data: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("told-runs"), told_data, metadata="age,sex,site")


@pytest.fixture(scope="session")
def ensemble(told_run: Path) -> Ensemble:
    return Ensemble.load(told_run, threads=1)


@pytest.fixture(scope="session")
def client(told_run: Path) -> Iterator[TestClient]:
    settings = ServeConfig(told_run, decode_threads=1, max_files=8, max_megabytes=8, queue=16)
    service = start_service(open_trained_run(told_run), settings)
    yield TestClient(build_app(service, settings, None), base_url="http://127.0.0.1:8000")
    service.close()


def files_of(data: Dataset, rows: range) -> list[Path]:
    raw = data.folder.parent / "raw"
    return [raw / source for source in data.manifest["source"].iloc[list(rows)]]


def patients_of(data: Dataset, rows: range) -> list[dict[str, str]]:
    table = data.manifest[list(FIELDS)].iloc[list(rows)]
    return [{name: str(value) for name, value in row.items() if pd.notna(value)} for row in table.to_dict("records")]


def blank(data: Dataset) -> Dataset:
    unknown = {"age": np.float32(np.nan), "sex": None, "site": None}
    return replace(data, manifest=data.manifest.assign(**unknown))


def test_a_fold_predicts_as_in_training_to_the_bit_with_metadata_and_without(
    ensemble: Ensemble, told_run: Path, told_data: Dataset
) -> None:
    folds = pd.read_parquet(told_run / "folds.parquet").set_index("image_id")["fold"]
    own = (told_data.manifest["image_id"].map(folds) == 0).to_numpy()
    for dataset, name in ((told_data, "predictions.parquet"), (blank(told_data), WITHOUT_METADATA)):
        expected = pd.read_parquet(told_run / "fold-0" / name)
        answers = ensemble.predict(Images.of(dataset, own)).raw[0]
        assert np.array_equal(answers, expected[list(ensemble.labels)].to_numpy()), name


def test_all_paths_answer_alike(
    ensemble: Ensemble, data: Dataset, told_data: Dataset, told_run: Path, predict: Predict, client: TestClient,
    tmp_path: Path,
) -> None:  # fmt: skip
    rows = range(1, 7)
    files, patients = files_of(data, rows), patients_of(told_data, rows)
    for informed in (False, True):
        images = Images(told_data if informed else blank(told_data), np.array(rows))
        expected = ensemble.predict(images).probability
        about = patients if informed else None
        assert np.abs(ensemble.predict(files, about=about).probability - expected).max() < 1e-6

        table, out = tmp_path / f"{informed}.csv", tmp_path / f"{informed}-answers.csv"
        with table.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["image", *(FIELDS if informed else ())], restval="unknown")
            writer.writeheader()
            writer.writerows(
                {"image": str(path), **(each if informed else {})} for path, each in zip(files, patients, strict=True)
            )
        text = predict(told_run, table, "--out", out, "--dataset", told_data.folder)
        assert f"age of {sum('age' in each for each in patients) if informed else 0}" in text
        answers = pd.read_csv(out)
        assert np.abs(answers[list(ensemble.labels)].to_numpy() - expected).max() < 1e-6
        assert (
            answers["metadata"].iloc[0].startswith("age 21" if informed else "age unknown, sex unknown, site unknown")
        )

        for row, path in enumerate(files):
            form = [("images", (path.name, path.read_bytes(), "image/jpeg"))]
            answer = client.post("/v1/predict", files=form, data=patients[row] if informed else {}).json()["images"][0]
            assert np.abs([answer[label] for label in ensemble.labels] - expected[row]).max() < 1e-6
    one = client.post("/v1/predict", files=[form[0], form[0]], data={"age": ["30", "unknown"]}).json()["images"]
    assert [each["metadata"].split(",")[0] for each in one] == ["age 30", "age unknown"]


def test_metadata_change_the_answer(ensemble: Ensemble, data: Dataset) -> None:
    files = files_of(data, range(4))
    young, old = (ensemble.predict(files, about=[{"age": age}] * 4).probability for age in (20, 80))
    assert not np.array_equal(young, old)
    with pytest.raises(ConfigError, match="must be an age of 0 to 120"):
        ensemble.predict(files, about=[{"age": 130}] * 4)
    with pytest.raises(ConfigError, match="1 patients for 4 images"):
        ensemble.predict(files, about=[{"age": 30}])


def test_wrong_metadata_are_refused_before_anything_is_predicted(
    client: TestClient, data: Dataset, told_run: Path, predict: Predict, tmp_path: Path
) -> None:
    path = files_of(data, range(1))[0]
    form = [("images", ("a.jpg", path.read_bytes(), "image/jpeg"))] * 3
    answer = client.post("/v1/predict", files=form, data={"age": "130"})
    assert (answer.status_code, answer.json()["code"]) == (400, "metadata")
    assert "0 to 120" in answer.json()["detail"]
    answer = client.post("/v1/predict", files=form, data={"age": ["30", "40"]})
    assert (answer.status_code, answer.json()["code"]) == (400, "metadata_count")
    (tmp_path / "t.csv").write_text(f"image,Sex\n{path},x\n")
    assert "sex x: must be one of female, male, or unknown" in predict(told_run, tmp_path / "t.csv", code=2)


def test_the_server_says_what_its_model_takes(client: TestClient) -> None:
    metadata = client.get("/v1/model").json()["metadata"]
    assert list(metadata) == list(FIELDS)
    assert metadata["sex"] == {"words": ["female", "male"]}
    assert metadata["age"]["high"] == 120


def test_the_report_compares_with_and_without_per_source(told_run: Path, told_data: Dataset) -> None:
    use = read_summary(told_run).metadata
    assert use is not None
    assert [each.source for each in use.sources] == ["all images", "BCN20000", "HAM10000"]
    table, without = (pd.read_parquet(told_run / name) for name in ("predictions.parquet", WITHOUT_METADATA))
    assert use.sources[0].images == len(table) == len(without)
    assert use.sources[0].positives == int(table["MEL" + TRUE].sum())
    assert [each.facts for each in use.shortcuts] == [
        "age, sex, site", "site", "which of these are unknown", "source"
    ]  # fmt: skip
    page = (told_run / "report.html").read_text()
    for text in ("With and without metadata, per source", "Predicting melanoma without the image", "age, sex, site"):
        assert text in page


def test_a_run_with_metadata_is_exported_for_hugging_face(
    told_run: Path, export: Export, tmp_path: Path, ensemble: Ensemble, data: Dataset
) -> None:
    out = tmp_path / "export"
    export(told_run, "--format", "hub", "--out", out, "--tta", 1)
    assert 'about=[{"age": 55' in (out / "README.md").read_text()
    files, about = files_of(data, range(3)), [{"age": 70}] * 3
    loaded = melanoma_dist.load_hub(out)
    assert np.abs(loaded.predict(files, about=about).raw - ensemble.predict(files, about=about).raw).max() < 1e-6


def test_exported_files_take_metadata_and_answer_as_predict_in_a_python_without_this_package(
    told_run: Path, export: Export, tmp_path: Path, ensemble: Ensemble, data: Dataset, packages: Path
) -> None:
    out = tmp_path / "export"
    export(told_run, "--out", out, "--tta", 2)
    text = alone(packages, "verify.py", folder=out)
    assert float(re.findall(r"largest difference of a probability: (\S+)", text)[0]) < 1e-5
    session = onnxruntime.InferenceSession(out / "ensemble.onnx")
    assert [(each.name, each.type, each.shape) for each in session.get_inputs()] == [
        ("images", "tensor(uint8)", ["batch", "height", "width", 3]), ("metadata", "tensor(float)", ["batch", 3])
    ]  # fmt: skip
    about = session.get_modelmeta().custom_metadata_map
    assert list(json.loads(about["metadata"])) == list(FIELDS)
    assert "NaN is unknown" in about["metadata_rule"]

    files = files_of(data, range(3))
    patients: list[dict[str, str]] = [{}, {"age": "80", "sex": "unknown"}, {"sex": "Female", "site": "lower extremity"}]
    words = [str(w) for file, each in zip(files, patients, strict=True) for w in (file, *map("=".join, each.items()))]
    text = alone(packages, "predict.py", "ensemble.onnx", *words, folder=out)
    answers = [json.loads(line)["probability"] for line in text.splitlines()]
    probability = [[each[label] for label in ensemble.labels] for each in answers]
    np.testing.assert_allclose(probability, ensemble.predict(files, 2, about=patients).probability, atol=1e-5)
    without = ensemble.predict(files, 2).probability
    np.testing.assert_allclose(probability[0], without[0], atol=1e-5)
    assert np.abs(probability[1:] - without[1:]).max() > 1e-4, "the models do not depend on metadata"
    for word, message in (("age=121", "an age of 0 to 120 years"), ("sex=x", "one of female, male")):
        with pytest.raises(AssertionError, match=f"{word}: must be {message}"):
            alone(packages, "predict.py", "ensemble.onnx", files[0], word, folder=out)


@pytest.mark.slow
def test_programs_of_torch_take_metadata(told_run: Path, export: Export, tmp_path: Path) -> None:
    export(told_run, "--format", "torch", "--out", tmp_path / "torch", "--tta", 1)
    command = [sys.executable, "-I", str(tmp_path / "torch/verify.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "largest difference" in done.stdout, done.stderr
    assert done.returncode == 0

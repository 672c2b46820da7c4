from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from safetensors.torch import save_file

from melanoma_dist.artifacts.decision_rules import DecisionRules
from melanoma_dist.artifacts.predictions import predictions_table
from melanoma_dist.config.run import RunConfig
from melanoma_dist.data.folds import make_folds
from melanoma_dist.data.labels import LABEL_SETS, targets
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.evaluate.report.error_gallery import write_error_gallery
from melanoma_dist.inference.ensemble import Ensemble
from melanoma_dist.models.classifier import build_classifier
from melanoma_dist.world import World

from ...samples import tiny
from .conftest import report_page
from .folder import write_run

LABELS = LABEL_SETS["isic2019"]


@pytest.fixture
def config() -> RunConfig:
    return tiny(folds=2, backbone="test_resnet", image_size=64)


@pytest.fixture
def table(dataset: Dataset, config: RunConfig) -> pd.DataFrame:
    """Predictions without any knowledge of the images."""
    folds = make_folds(dataset.manifest, LABELS, 2, 0)
    images = dataset.manifest.set_index("image_id").loc[folds["image_id"]]
    probability = np.random.default_rng(0).random((len(folds), len(LABELS))).astype(np.float32)
    predictions = predictions_table(folds, 0, LABELS, probability, targets(images, LABELS))
    predictions["fold"] = folds["fold"].astype(np.int32)
    return predictions


def read(folder: Path) -> dict[str, list[dict[str, object]]]:
    gallery = json.loads((folder / "gallery" / "gallery.json").read_text())
    return {kind["title"].split(":")[0]: kind["errors"] for kind in gallery["kinds"]}


def size_of(folder: Path, name: object) -> tuple[int, int]:
    with Image.open(folder / "gallery" / str(name)) as picture:
        return picture.size


def ensemble_of(folder: Path, config: RunConfig, dataset: Dataset) -> Ensemble:
    return Ensemble(folder, config, dataset.fingerprint, DecisionRules({}, {}, {}), dataset.size, World())


def save_models(folder: Path, config: RunConfig, dataset: Dataset) -> None:
    (folder / "model").mkdir()
    for fold in range(2):
        model = build_classifier(config.model, 64, len(LABELS), seed=fold, weights="none")
        about = {"labels": ",".join(LABELS), "fold": str(fold), "data": dataset.fingerprint}
        save_file(model.state_dict(), folder / "model" / f"fold-{fold}.safetensors", about)


def test_the_most_confident_errors_are_kept_with_pictures_and_saliency(
    dataset: Dataset, config: RunConfig, table: pd.DataFrame, tmp_path: Path
) -> None:
    save_models(tmp_path, config, dataset)
    write_error_gallery(tmp_path, ensemble_of(tmp_path, config, dataset), dataset, table, 0.5, limit=4)
    errors = read(tmp_path)
    missed = table[(table["MEL_true"] == 1) & (table["MEL"] < 0.5)].sort_values("MEL")
    alarms = table[(table["MEL_true"] == 0) & (table["MEL"] >= 0.5)].sort_values("MEL", ascending=False)
    for title, rows in (("Missed", missed), ("False alarms", alarms)):
        expected = rows.drop_duplicates("group").head(4)
        assert [each["image_id"] for each in errors[title]] == expected["image_id"].tolist()
        assert [each["fold"] for each in errors[title]] == expected["fold"].tolist()
        assert [each["probability"] for each in errors[title]] == expected["MEL"].astype(float).tolist()
    assert all(each["diagnosis"] == "MEL" for each in errors["Missed"])
    assert all("MEL" not in str(each["diagnosis"]) for each in errors["False alarms"])
    sized = dataset.manifest.set_index("image_id")
    for each in errors["Missed"] + errors["False alarms"]:
        size = size_of(tmp_path, each["picture"])
        assert size == (each["width"], each["height"])
        about = sized.loc[str(each["image_id"])]
        assert size[0] / size[1] == pytest.approx(about["width"] / about["height"], rel=0.05)
        if each["saliency"] is None:
            assert each["why"] == f"nothing in the image speaks {each['speaks']} melanoma"
        else:
            assert size_of(tmp_path, each["saliency"]) == size
    assert any(each["saliency"] for each in errors["Missed"] + errors["False alarms"])


def test_without_weights_the_pictures_say_why_they_have_no_saliency(
    dataset: Dataset, config: RunConfig, table: pd.DataFrame, tmp_path: Path
) -> None:
    write_run(tmp_path, labels=("MEL",), folds=2, images=120)
    write_error_gallery(tmp_path, ensemble_of(tmp_path, config, dataset), dataset, table, 0.5)
    page = report_page(tmp_path)
    pictures = page.having("img")
    assert 2 <= len(pictures) <= 12
    assert all((picture["src"] or "").startswith("data:image/jpeg;base64,") for picture in pictures)
    assert page.text.count("No saliency: the fold's weights are not in the run.") == len(pictures)
    assert all(picture["alt"] for picture in pictures)


def test_a_new_gallery_replaces_the_old_one_and_may_be_empty(
    dataset: Dataset, config: RunConfig, table: pd.DataFrame, tmp_path: Path
) -> None:
    write_error_gallery(tmp_path, ensemble_of(tmp_path, config, dataset), dataset, table, 0.5)
    table["MEL"] = table["MEL_true"].fillna(0).astype(np.float32)  # never wrong
    write_error_gallery(tmp_path, ensemble_of(tmp_path, config, dataset), dataset, table, 0.5)
    assert read(tmp_path) == {"Missed": [], "False alarms": []}
    assert [path.name for path in (tmp_path / "gallery").iterdir()] == ["gallery.json"]

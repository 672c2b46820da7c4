"""`predict --explain`: pictures of the evidence, what they are worth, and the most similar images of the run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from melanoma_dist.app.similar_cases import _licence, _source
from melanoma_dist.data.labels import DIAGNOSES, LABEL_COLUMNS
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.inference import explanation

from .conftest import Predict


def grad_cam(
    model: object, images: object, label: int, against: object = None, metadata: object = None
) -> tuple[object, str]:
    """A map of four places: the models of the tests have one."""
    import torch

    return torch.tensor([[[1.0, 0.2], [0.0, 0.1]]]), ""


def test_each_image_has_a_picture_and_its_nearest_image_is_itself(
    finished: Path,
    data: Dataset,
    sources: list[Path],
    predict: Predict,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(explanation, "grad_cam", grad_cam)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    words = [finished, sources[0], tmp_path / "broken.jpg", sources[1], "--out", tmp_path / "out.csv"]
    predict(*words, "--explain", tmp_path / "pictures", code=1)
    answers = pd.read_csv(tmp_path / "out.csv")
    table = pd.read_csv(tmp_path / "pictures" / "explanations.csv")
    for at, number in ((0, 0), (2, 1)):
        rows = table[table["image"] == str(sources[number])]
        called = [label for label in DIAGNOSES if str(answers[f"{label}_positive"][at]) == "True"]
        assert sorted(rows["label"]) == sorted({"MEL", *called})
        manifest = data.manifest.iloc[number]
        diagnosis = next(label for label in LABEL_COLUMNS if manifest[label] == 1)
        first = f"{manifest['image_id']} ({diagnosis}, synthetic; similarity "
        assert rows["similar_1"].str.startswith(first).all()
        np.testing.assert_allclose(rows["probability"], [answers[label][at] for label in rows["label"]], rtol=1e-5)
        for name in rows["picture"]:
            with Image.open(tmp_path / "pictures" / name) as picture:
                assert picture.size == (2 * manifest["width"], manifest["height"])
    assert not table["image"].str.contains("broken").any()


def test_without_a_map_the_reason_is_in_the_table(
    finished: Path, sources: list[Path], predict: Predict, tmp_path: Path
) -> None:
    text = predict(finished, sources[0], "--explain", tmp_path / "pictures")
    assert f"pictures: {tmp_path / 'pictures'}" in text
    table = pd.read_csv(tmp_path / "pictures" / "explanations.csv")
    assert (table["explanation"] == "No map: the backbone's last map has one position.").all()
    assert table["picture"].isna().all()


def test_a_folder_that_cannot_be_written_is_refused_before_any_image_is_read(
    finished: Path, sources: list[Path], predict: Predict, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    text = predict(finished, sources[0], "--explain", tmp_path / "file" / "pictures", code=2)
    assert "--explain" in text
    assert "predicting" not in text


def test_a_picture_has_the_most_liberal_licence_under_which_it_was_published() -> None:
    assert (_source([2017, 2019]), _licence([2017, 2019])) == ("ISIC 2017 and 2019", "CC0")
    assert (_source([2018]), _licence([2018])) == ("ISIC 2018", "CC BY-NC 4.0")

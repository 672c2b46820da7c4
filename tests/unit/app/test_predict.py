"""The command on a real finished run: the answers, their doubts, and what it refuses."""

from __future__ import annotations

import json
import os
import shutil
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter

import melanoma_dist
from melanoma_dist.app.decoders import Decoders
from melanoma_dist.artifacts.decision_rules import read_decision_rules
from melanoma_dist.data.labels import DIAGNOSES
from melanoma_dist.data.lesion import draw_lesion, photograph
from melanoma_dist.data.manifest import Dataset
from melanoma_dist.inference.trained_run import open_trained_run

from ..evaluate.holdout.commands import run_on_cpu
from ..evaluate.holdout.conftest import FOLDS, PHOTOGRAPHED
from .conftest import Predict

ANSWERS = ["seen_in_training", "novelty", "out_of_distribution", "too_small", "blurred", "folds_disagree", "doubts",
           "width", "height", "blur", "sha256", "error"]  # fmt: skip
NUMBERS = ["", "_low", "_high", "_positive"]


def new_photograph(path: Path, seed: int = 0) -> Path:
    """A photograph that no data set has, larger than a model's input."""
    rng = np.random.default_rng([99, seed])
    Image.fromarray(photograph(rng, draw_lesion(rng, "NV"))).save(path, quality=95)
    return path


def trained_photograph(run: Path, data: Dataset, sources: list[Path]) -> tuple[str, Path]:
    """A training image with details: its id and its file."""
    ids = set(open_trained_run(run).trained(data).table["image_id"])
    detailed = {f"ISIC_{number:07d}" for number in PHOTOGRAPHED}
    return next((name, path) for name, path in zip(data.manifest["image_id"], sources, strict=True)
                if name in ids & detailed)  # fmt: skip


def test_a_fold_answers_for_its_validation_images_to_the_bit_as_in_training(
    finished: Path, data: Dataset, sources: list[Path], predict: Predict, tmp_path: Path
) -> None:
    rules = read_decision_rules(finished)
    fold_of = data.manifest["image_id"].map(pd.read_parquet(finished / "folds.parquet").set_index("image_id")["fold"])
    for fold in range(FOLDS):
        files = [path for path, own in zip(sources, fold_of == fold, strict=True) if own]
        predict(finished, *files, "--out", tmp_path / "out.parquet", "--batch-size", 9)
        answers = pd.read_parquet(tmp_path / "out.parquet")
        trained = rules.calibrate(pd.read_parquet(finished / f"fold-{fold}/predictions.parquet"), DIAGNOSES)
        for label in DIAGNOSES:
            expected = trained[label].to_numpy()
            assert expected.dtype == answers[label].dtype == np.float32
            assert ((answers[f"{label}_low"] == expected) | (answers[f"{label}_high"] == expected)).all()
        assert (answers["seen_in_training"].str.startswith("the same file as ISIC_")).all()


def test_the_answers_are_those_of_the_ensemble(finished: Path, predict: Predict, tmp_path: Path) -> None:
    files = [new_photograph(tmp_path / f"{number}.jpg", number) for number in range(5)]
    text = predict(finished, *files, "--out", tmp_path / "out.parquet", "--tta", 3, "--batch-size", 4)
    assert "with another number, probabilities are less well calibrated" in text  # than of the run
    answers = pd.read_parquet(tmp_path / "out.parquet")
    expected = melanoma_dist.load_run(finished).ensemble(threads=1).predict(files, tta=3, batch_size=4)
    columns = [label + suffix for label in expected.labels for suffix in NUMBERS]
    assert list(answers) == ["image", *columns, *ANSWERS]
    assert answers["image"].tolist() == list(map(str, files))
    assert np.array_equal(answers[list(expected.labels)], expected.probability)
    assert np.array_equal(answers[[f"{label}_positive" for label in expected.labels]].astype(bool), expected.positive)
    assert np.array_equal(answers[[f"{label}_low" for label in expected.labels]], expected.calibrated.min(axis=0))
    assert np.array_equal(answers[[f"{label}_high" for label in expected.labels]], expected.calibrated.max(axis=0))
    for row, folds in zip(answers["folds_disagree"], (expected.calibrated >= expected.thresholds).sum(0), strict=True):
        assert row.split() == [label for label, n in zip(expected.labels, folds, strict=True) if 0 < n < FOLDS]
    assert f"{int(expected.positive[:, 0].sum())} of 5 images are called MEL" in text


def test_neither_chunks_nor_batches_nor_bad_files_change_an_answer(
    finished: Path, sources: list[Path], predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = sources[:20]
    (tmp_path / "broken.jpg").write_bytes(sources[0].read_bytes()[:200])

    def answers(*words: object, code: int = 0) -> pd.DataFrame:
        predict(finished, *words, "--out", tmp_path / "out.parquet", code=code)
        table = pd.read_parquet(tmp_path / "out.parquet")
        return table[table["error"] == ""].reset_index(drop=True)

    whole = answers(*files, "--batch-size", 5)
    monkeypatch.setattr("melanoma_dist.app.scoring._CHUNK_ON_CPU", 5)
    pd.testing.assert_frame_equal(answers(*files, "--batch-size", 5), whole, check_exact=True)
    broken = [tmp_path / "broken.jpg"]
    mixed = answers(*broken, *files[:3], *broken, *files[3:], *broken, "--batch-size", 5, code=1)
    pd.testing.assert_frame_equal(mixed, whole, check_exact=True)
    pd.testing.assert_frame_equal(answers(*files, "--batch-size", 3), whole, rtol=0, atol=1e-5)


def test_the_number_of_decoders_does_not_change_an_answer(
    finished: Path, sources: list[Path], predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict(finished, *sources[:8], "--out", tmp_path / "one.parquet")
    pool = partial(Decoders, 3)
    monkeypatch.setattr("melanoma_dist.app.predict.Decoders", lambda _, *rest: pool(*rest))
    predict(finished, *sources[:8], "--out", tmp_path / "three.parquet")
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "three.parquet").read_bytes()


def test_a_bad_file_is_a_row_with_its_reason(finished: Path, predict: Predict, tmp_path: Path) -> None:
    good = new_photograph(tmp_path / "good.jpg")
    (tmp_path / "page.jpg").write_text("<html>")
    (tmp_path / "cut.jpg").write_bytes(good.read_bytes()[:1000])
    (tmp_path / "list.csv").write_text("image\npage.jpg\ngood.jpg\nmissing.jpg\n.\ncut.jpg\n")
    text = predict(finished, tmp_path / "list.csv", "--out", tmp_path / "out.csv", code=1)
    assert "4 of 5 images cannot be predicted" in text
    answers = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)
    assert [reason != "" for reason in answers["error"]] == [True, False, True, True, True]
    assert "HTML page" in answers["error"][0]
    assert answers["error"][2] == "No such file or directory"
    assert answers.loc[0, ["MEL", "MEL_low", "MEL_positive", "too_small", "width", "doubts"]].tolist() == [""] * 6
    assert 0 <= float(answers["MEL_low"][1]) <= float(answers["MEL"][1]) <= float(answers["MEL_high"][1]) <= 1
    strange = Path(os.fsdecode(bytes(tmp_path) + b"/\xff.jpg"))
    shutil.copy(good, strange)
    predict(finished, strange, "--out", tmp_path / "strange.csv")
    assert pd.read_csv(tmp_path / "strange.csv")["image"].tolist() == [f"{tmp_path}/\\udcff.jpg"]
    text = predict(finished, tmp_path / "page.jpg", good, code=1)
    assert "Cannot be predicted: not an image" in text
    assert "For research only" in text


def test_a_training_image_is_recognised_whatever_it_was_saved_as(
    finished: Path, data: Dataset, sources: list[Path], predict: Predict, tmp_path: Path
) -> None:
    name, path = trained_photograph(finished, data, sources)
    with Image.open(path) as image:
        larger = image.resize((image.width * 2, image.height * 2), Image.Resampling.LANCZOS)
        image.save(tmp_path / "again.webp", quality=80)
    larger.save(tmp_path / "larger.png")
    shutil.copy(path, tmp_path / "same.jpg")
    new = new_photograph(tmp_path / "new.jpg")
    files = [tmp_path / "same.jpg", tmp_path / "again.webp", tmp_path / "larger.png", new]
    predict(finished, *files, "--out", tmp_path / "out.json")
    rows = json.loads((tmp_path / "out.json").read_text())
    reasons = [row["seen_in_training"] for row in rows]
    assert reasons[0] == f"the same file as {name}"
    assert reasons[1].startswith(f"a copy of {name} (details correlate at 0.9")
    assert reasons[2].startswith(f"a copy of {name} (")
    assert reasons[3] == ""
    assert f"The run was trained on this image: it is {reasons[1]}." in rows[1]["doubts"]


def test_an_image_of_a_holdout_was_not_trained_on(
    finished: Path, data: Dataset, sources: list[Path], predict: Predict, tmp_path: Path
) -> None:
    held_out = [path for path, split in zip(sources, data.manifest["split"], strict=True) if split == "holdout"]
    (tmp_path / "list.csv").write_text(
        "image,MEL\n" + "".join(f"{path},{at % 2}\n" for at, path in enumerate(held_out))
    )
    text = predict(finished, tmp_path / "list.csv", "--out", tmp_path / "out.parquet")
    assert (pd.read_parquet(tmp_path / "out.parquet")["seen_in_training"] == "").all()
    assert f"No metrics: {len(held_out)} of {len(held_out)} images are in the run's own data set" in text


def test_a_holdout_gets_the_probabilities_of_evaluate(
    run: Path,
    data: Dataset,
    sources: list[Path],
    predict: Predict,
    capfd: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    run_on_cpu(capfd, "evaluate", run, "--holdout", "holdout")
    held_out = [path for path, split in zip(sources, data.manifest["split"], strict=True) if split == "holdout"]
    predict(run, *held_out, "--out", tmp_path / "out.parquet", "--batch-size", 9)
    answers = pd.read_parquet(tmp_path / "out.parquet")
    evaluated = pd.read_parquet(run / "evaluations" / "001-holdout" / "predictions.parquet")
    assert len(evaluated) == len(answers)
    for label in DIAGNOSES:
        assert np.array_equal(answers[label], evaluated[label])


def test_a_data_set_that_cannot_be_read_is_reported_and_nothing_is_called_unseen(
    run: Path, data: Dataset, predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = new_photograph(tmp_path / "new.jpg")
    copy = Path(shutil.copytree(data.folder, tmp_path / "moved"))
    (tmp_path / "list.csv").write_text(f"image,MEL_true\n{new},1\n")
    monkeypatch.setattr("melanoma_dist.inference.trained_run.open_dataset", lambda name: refuse(name, data, copy))
    text = predict(run, tmp_path / "list.csv", "--out", tmp_path / "out.csv")
    assert "not checked: which of these images the run was trained on" in text
    assert "No metrics: whether the run was trained on these images is not known" in text
    assert pd.read_csv(tmp_path / "out.csv")["seen_in_training"].tolist() == ["not checked"]
    assert "If it was moved, --dataset says where it is" in text
    assert "--data demo" not in text  # no flag of this command
    again = predict(run, new, "--dataset", copy)
    assert "not checked" not in again
    assert "operating points were fixed" not in again
    assert "cannot be read" in predict(run, new, "--dataset", tmp_path, code=2)


def refuse(name: str, data: Dataset, copy: Path) -> Dataset:
    """Open the data set in its new place alone."""
    from melanoma_dist.data.demo import open_dataset

    return open_dataset("/nowhere" if name == str(data.folder) else name)


def test_blurred_images_are_doubtful(finished: Path, predict: Predict, tmp_path: Path) -> None:
    tiles = Image.fromarray(np.random.default_rng(5).integers(0, 256, (15, 20, 3), dtype=np.uint8))
    sharp = tiles.resize((400, 300), Image.Resampling.NEAREST)
    sharp.save(tmp_path / "sharp.png")
    sharp.filter(ImageFilter.GaussianBlur(15)).save(tmp_path / "blurred.png")
    sharp.filter(ImageFilter.GaussianBlur((15, 0))).save(tmp_path / "moved.png")
    files = [tmp_path / f"{name}.png" for name in ("sharp", "blurred", "moved")]
    predict(finished, *files, "--out", tmp_path / "out.parquet")
    answers = pd.read_parquet(tmp_path / "out.parquet")
    assert answers["blurred"].tolist() == [False, True, True]
    assert answers["too_small"].tolist() == [False] * 3
    assert "Blurred: it shows less detail than the models can see." in answers["doubts"][1]
    assert answers[["width", "height"]].to_numpy().tolist() == [[400, 300]] * 3


def test_columns_of_a_table_pass_through_and_its_truth_gives_metrics(
    finished: Path, predict: Predict, tmp_path: Path
) -> None:
    rows = ["blur,image,MEL,NV_true,BKL,patient_id"]
    for number in range(12):
        new_photograph(tmp_path / f"{number}.jpg", number)
        rows.append(
            f"note {number},{number}.jpg,{number % 2},{'' if number < 3 else number % 3 // 2},maybe,{number // 2}"
        )
    (tmp_path / "list.csv").write_text("\n".join(rows) + "\n")
    text = predict(finished, tmp_path / "list.csv", new_photograph(tmp_path / "extra.jpg", 77),
                   "--out", tmp_path / "new/out.csv")  # fmt: skip
    answers = pd.read_csv(tmp_path / "new/out.csv")
    assert list(answers)[:7] == ["image", "MEL_true", "NV_true", "blur_input", "BKL_input", "patient_id", "MEL"]
    assert answers["blur_input"].tolist()[:2] == ["note 0", "note 1"]
    assert answers["MEL_true"].tolist()[:12] == [number % 2 for number in range(12)]
    assert np.isnan(answers["NV_true"].to_numpy()[[0, 1, 2, 12]]).all()
    assert np.isnan(answers["MEL_true"][12])
    assert "Metrics on the truth of the tables" in text
    assert "Not evaluated, as not both answers occur: BCC, AK, BKL" in text
    assert "No truth for metrics: BKL in the tables has 'maybe', which is not 0, 1 or empty" in text
    assert "logged nowhere" in text
    assert not list(finished.glob("evaluations/*"))


def test_truth_on_training_images_gives_no_metrics(
    finished: Path, data: Dataset, sources: list[Path], predict: Predict, tmp_path: Path
) -> None:
    name, path = trained_photograph(finished, data, sources)
    new = new_photograph(tmp_path / "new.jpg")
    (tmp_path / "list.csv").write_text(f"image,MEL_true\n{path},0\n{new},1\n")
    text = predict(finished, tmp_path / "list.csv")
    assert f"No metrics: the run was trained on 1 of 2 images ({path} is the same file as {name})" in text
    (tmp_path / "list.csv").write_text(f"image,MEL_true\n{new},yes\n")
    assert "MEL_true is 'yes' in its table" in predict(finished, tmp_path / "list.csv", code=2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["RUN"], "name at least one image"),
        (["nowhere", "IMAGE"], "nowhere: is not the folder of a run"),
        (["RUN", "imag.jpg"], "there is no such file or folder"),
        (["RUN", "link.jpg"], "link.jpg: is a link that leads nowhere"),
        (["RUN", 300 * "x"], "cannot be opened (File name too long)"),
        ([300 * "x", "IMAGE"], "cannot be opened (File name too long)"),
        (["RUN", "IMAGE", "--out", 300 * "x" + ".csv"], "cannot be opened (File name too long)"),
        (["RUN", "FOLDER"], "no images in"),
        (["RUN", "IMAGE", "--out", "answers.xlsx"], "must end in .csv, .parquet or .json"),
        (["RUN", "IMAGE", "--out", "FOLDER"], "must end in"),
        (["RUN", "IMAGE", "--out", "IMAGE/out.csv"], "cannot be written"),
        (["RUN", "list.csv", "--out", "list.csv"], "is an input, which it would replace"),
        (["RUN", "IMAGE", "--tta", "9"], "must be 1 to 8"),
        (["RUN", "IMAGE", "--batch-size", "0"], "must be 1 to 65536"),
        (["RUN", "IMAGE", "--dataset", " "], "is empty"),
        (["FOLDER", "IMAGE"], "is not the folder of a run"),
    ],
)
def test_a_mistake_is_refused(
    words: list[str], message: str, finished: Path, predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.csv").write_text("image\nimage.jpg\n")
    (tmp_path / "link.jpg").symlink_to("gone.jpg")
    names = {"RUN": str(finished), "IMAGE": str(new_photograph(tmp_path / "image.jpg")), "FOLDER": "empty"}
    before = sorted(tmp_path.rglob("*"))
    places = [names.get(word, word) for word in words]
    assert message in predict(*(place.replace("IMAGE", names["IMAGE"]) for place in places), code=2)
    assert sorted(tmp_path.rglob("*")) == before
